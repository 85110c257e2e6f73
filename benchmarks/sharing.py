"""Secret sharing, measured: every figure beside its peer, in one run.

    python benchmarks/sharing.py [--only SECTION] [--quick] [--long] [--repeats N] [--json FILE] [--markdown FILE]
                                 [--peers-python PATH] [--no-peers] [--strict]

What is measured, and how to read it, is in docs/benchmarks.md.
"""

from __future__ import annotations

import sys

from _main import Section, main
from _replicated import replicated
from _sharing import cnn, counts, elementwise, functions, holders, lenet, matmul, mlp, training, virtual, xor
from _wan import wan

ALL = (elementwise, matmul, lenet, cnn, mlp, functions, training, wan, replicated, virtual, holders, counts, xor)
SECTIONS: dict[str, Section] = {section.__name__: section for section in ALL}

if __name__ == "__main__":
    sys.exit(main(__doc__.split("\n", 1)[0], SECTIONS, long="CrypTen with its provider as a third process, too"))
