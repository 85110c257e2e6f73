"""Private prediction, measured: a client of a served model beside CrypTen, in one run.

    python benchmarks/prediction.py [--only SECTION] [--quick] [--repeats N] [--json FILE] [--markdown FILE]
                                    [--peers-python PATH] [--no-peers] [--strict]

What is measured, and how to read it, is in docs/benchmarks-prediction.md.
"""

from __future__ import annotations

import sys

from _main import Section, main
from _prediction import accuracy, latency, networks, sharing, throughput

SECTIONS: dict[str, Section] = {section.__name__: section for section in (latency, sharing, throughput, accuracy, networks)}

if __name__ == "__main__":
    sys.exit(main(__doc__.split("\n", 1)[0], SECTIONS, long="nothing"))
