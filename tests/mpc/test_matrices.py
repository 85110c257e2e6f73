"""Products by digits are the ring's own."""

import pytest
import torch

from syftlite.mpc import matrices
from syftlite.mpc.bilinear import MAPS
from syftlite.randomness import random_like

EXTREMES = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 1, 127, 128, -128, -129, 0x7F7F7F7F7F7F7F7F, -0x7F7F7F7F7F7F7F80])


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 2), (40, 300, 17), (64, 2000, 8)])
def test_digits_add_the_exact_product(m: int, k: int, n: int) -> None:
    x, y, out = random_like((m, k)), random_like((k, n)), random_like((m, n))
    expected = out + x @ y
    matrices.add_by_digits(out, (x, y))
    assert torch.equal(out, expected)


def test_digits_of_extremes() -> None:
    x, y = EXTREMES[:, None], EXTREMES[None]
    out = torch.zeros(11, 11, dtype=torch.int64)
    matrices.add_by_digits(out, (x, y))
    assert torch.equal(out, x * y)


def test_the_longest_sum_fits() -> None:
    """All digits -128 (and the carries with them): the largest sums that int32 has to hold."""
    x = torch.full((1, matrices._LONGEST), -0x7F7F7F7F7F7F7F80)
    out = torch.zeros(1, 1, dtype=torch.int64)
    matrices.add_by_digits(out, (x, x.t()))
    assert torch.equal(out, x @ x.t())


@pytest.mark.parametrize("tiles", [False, True])
def test_matmul_is_the_same_with_and_without_tiles(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "has_tiles", lambda: tiles)
    x, y = random_like((256, 260)), random_like((260, 257))
    assert torch.equal(MAPS["matmul"](x, y), x @ y)
    assert torch.equal(MAPS["matmul"](x, y.t().contiguous().t()), x @ y)


@pytest.mark.parametrize("tiles", [False, True])
def test_a_sum_of_products(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "has_tiles", lambda: tiles)
    a, b, c, d, out = (random_like(shape) for shape in ((300, 200), (200, 256), (300, 90), (90, 256), (300, 256)))
    expected = out + a @ b + c @ d
    matrices.add_products(out, (a, b), (c, d))
    assert torch.equal(out, expected)
