"""Max pooling: the greatest of the windows' elements, by the knockout of selection.py.

    image (N, C, H, W)  ->  k k strided slices (N, OH, OW, C)  ->  greatest  ->  relu and truncation, on what is left

Comparing before truncating and clamping leaves a quarter of the elements for relu (2 x 2), and relu commutes with the maximum. An average
pooling is a sum, folded into the convolution before it (convolution.py), and bits of the next truncation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from syftlite.mpc.convolution import Pair
from syftlite.mpc.party import Party
from syftlite.mpc.pieces import elementwise
from syftlite.mpc.products import product
from syftlite.mpc.selection import greatest, greatest_and_mask, relu
from syftlite.mpc.truncation import truncate


class Pool(NamedTuple):
    """Windows of a pooling."""

    kernel: Pair
    stride: Pair
    padding: Pair

    def out(self, h: int, w: int) -> Pair:
        """The pooled image's height and width."""
        sizes = [(size + 2 * pad - k) // s + 1 for size, k, s, pad in zip((h, w), *self)]
        return sizes[0], sizes[1]

    def slices(self, h: int, w: int) -> list[tuple[slice, slice]]:
        """Where each element of the kernel lies in all windows of the padded image."""
        oh, ow = self.out(h, w)
        (kh, kw), (sh, sw) = self.kernel, self.stride
        rows = [slice(i, i + (oh - 1) * sh + 1, sh) for i in range(kh)]
        return [(row, slice(j, j + (ow - 1) * sw + 1, sw)) for row in rows for j in range(kw)]


def _candidates(p: Party, x: Tensor, pool: Pool, low: int) -> list[Tensor]:
    """One (N, OH, OW, C) tensor for each element of the kernel; the padding is less than anything in range."""
    image = x.permute(0, 2, 3, 1)
    (ph, pw), least = pool.padding, -p.ring.shift if low < 0 else (1 << low) - (1 << (low + 30))
    if ph or pw:
        image = torch.nn.functional.pad(image, (0, 0, pw, pw, ph, ph), value=least if p.first else 0)
    return [image[:, rows, columns] for rows, columns in pool.slices(x.shape[2], x.shape[3])]


async def max_pool2d(p: Party, x: Tensor, pool: Pool, f: int, rectify: bool, low: int) -> Tensor:
    """(N, C, H, W) -> (N, C, OH, OW), then relu if ``rectify``, then divided by 2^f."""
    best = await greatest(p, _candidates(p, x, pool, low), low)
    if rectify:
        (best,) = await elementwise(p, relu, best, f=f, low=low)
    elif f:
        (best,) = await elementwise(p, truncate, best, f=f)
    return best.permute(0, 3, 1, 2)


async def max_pool2d_and_mask(p: Party, x: Tensor, pool: Pool, low: int) -> tuple[Tensor, Tensor]:
    """The pooled image and one-hot shares (N, C, OH, OW, kh kw) of where in its window each value was."""
    best, mask = await greatest_and_mask(p, _candidates(p, x, pool, low), low)
    return best.permute(0, 3, 1, 2), mask.permute(1, 4, 2, 3, 0)


async def max_pool2d_grad(p: Party, grad: Tensor, mask: Tensor, size: Pair, pool: Pool) -> Tensor:
    """The gradient (N, C, H, W) of the pooled image's: each window's goes where its one-hot says. One round."""
    parts = await product(p, "mul", grad[..., None], mask)
    (h, w), (ph, pw) = size, pool.padding
    out = grad.new_zeros(*grad.shape[:2], h + 2 * ph, w + 2 * pw)
    for part, (rows, columns) in zip(parts.unbind(-1), pool.slices(h, w)):
        out[:, :, rows, columns] += part
    return out[:, :, ph : ph + h, pw : pw + w].contiguous()
