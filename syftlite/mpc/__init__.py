"""Secret sharing as pure functions and coroutines: no sockets, no store, no clock.

    ring.py           Z_2^k, sharing and revealing
    bits.py           planes of bits
    matrices.py       products of matrices
    convolution.py    convolution as a product of matrices
    bilinear.py       the bilinear maps: products, matrix products, convolutions and their gradients
    correlations.py   what the provider deals: kinds, their fields, and how the secret ones follow
    dealer.py         the provider
    party.py          a holder: rounds, correlations, and what drives them
    truncation.py  products.py  comparison.py  selection.py  pooling.py  release.py     the protocols
    pieces.py         elementwise protocols on tensors of any shape and size
    kernel.py         what an entry of the list below is, and its dry run
    kernels.py        all that a conductor can ask for, by number

Each module starts with its formula and where it is from; docs/design/sharing.md tells how the parts fit.
"""

from syftlite.mpc.counting import Cost as Cost
from syftlite.mpc.counting import count as count
from syftlite.tensors.comparing import comparing as comparing
