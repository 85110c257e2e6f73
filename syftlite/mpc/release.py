"""Before shares leave the holders: a fresh sharing of the same value.

    holder i adds   z_i = sum over j > i of F(k_ij, number) - sum over j < i of F(k_ij, number),      so that z_0 + ... + z_(n-1) = 0

k_ij is known to holders i and j alone. A protocol's output shares depend on the provider's randomness and on the inputs: whoever receives
them and knows what the provider knows could solve for values that the output hides (which elements relu made 0, and what they were).
After the sum they are a uniform sharing of the output, to everyone but the holders. No message; 8 bytes of keystream an element and pair.

Pseudo-random zero sharing: Cramer, Damgard & Ishai, "Share conversion, pseudorandom secret-sharing and applications", 2005.
"""

from __future__ import annotations

from torch import Tensor

from syftlite.mpc.party import Party, Shareholder


def release(p: Shareholder, x: Tensor) -> Tensor:
    """This holder's share as it may leave: every holder must release the same values in the same order."""
    return p.zeros(tuple(x.shape)).add_(x)


async def refresh(p: Party, x: Tensor) -> Tensor:
    """A fresh sharing of x, as a protocol."""
    return release(p, x)
