"""Remote execution, measured: every figure beside its peer, in one run.

    python benchmarks/remote.py [--only SECTION] [--quick] [--long] [--repeats N] [--json FILE] [--markdown FILE]
                                [--peers-python PATH] [--no-peers] [--strict]

What is measured, and how to read it, is in docs/benchmarks.md.
"""

from __future__ import annotations

import sys

from _counts import clients, memory, training
from _main import Section, main
from _speed import bulk, pipelined, pointer, roundtrip
from _wide import cnn, plan, uncached

SECTIONS: dict[str, Section] = {
    section.__name__: section for section in (pointer, roundtrip, pipelined, bulk, training, plan, uncached, cnn, memory, clients)
}

if __name__ == "__main__":
    sys.exit(main(__doc__.split("\n", 1)[0], SECTIONS, long="a million ops for the memory figures, not 100,000"))
