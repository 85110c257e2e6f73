"""Two threads at once, as often interrupted as the interpreter can."""

import sys
import threading


def beside(work, look):
    """Run ``work`` in a thread and ``look`` here, again and again until it is done."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        while thread.is_alive():
            look()
    finally:
        thread.join()
        sys.setswitchinterval(interval)
