"""Linear algebra, Fourier transforms and complex numbers: remote as local, with gradients, and errors as late as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import syftlite as sy
from syftlite.errors import ObjectNotFoundError, OperatorNotReviewedError

L = torch.linalg
F64, C128 = torch.float64, torch.complex128
Function = Callable[..., Any]


def tensors(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in tensors(v)]


def outcome(function: Function, operands: list[torch.Tensor], *, grads: bool) -> list[torch.Tensor]:
    """The results, and the gradients of their absolute values' sines, fetched."""
    given = [x.detach().requires_grad_(grads) for x in operands]
    out = [t for t in tensors(function(*given)) if t.numel()]
    found = [t.detach() for t in out]
    if grads:
        total = sum(t.abs().sin().sum() for t in out if t.requires_grad)
        found += [g for g in torch.autograd.grad(total, given, allow_unused=True) if g is not None]
    return [t.get_copy() if isinstance(t, sy.PointerTensor) else t for t in found]


def check(worker: sy.VirtualWorker, function: Function, *operands: torch.Tensor, grads: bool = True) -> None:
    ours, theirs = outcome(function, list(operands), grads=grads), outcome(function, [x.send(worker) for x in operands], grads=grads)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-9)


def matrices(dtype: torch.dtype, *batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix far from singular, a positive definite one, and a right side."""
    a = torch.randn(*batch, 4, 4, dtype=dtype) + 3 * torch.eye(4, dtype=dtype)
    return a, a @ a.mH + torch.eye(4, dtype=dtype), torch.randn(*batch, 4, 2, dtype=dtype)


SOLVERS: dict[str, Function] = {
    "inv": lambda a, s, b: L.inv(a), "inverse": lambda a, s, b: a.inverse(), "solve": lambda a, s, b: L.solve(a, b),
    "solve from the right": lambda a, s, b: L.solve(a, b.mT, left=False), "cholesky": lambda a, s, b: L.cholesky(s),
    "cholesky, upper": lambda a, s, b: L.cholesky(s, upper=True), "cholesky_solve": lambda a, s, b: torch.cholesky_solve(b, L.cholesky(s)),
    "cholesky_inverse": lambda a, s, b: torch.cholesky_inverse(L.cholesky(s)), "solve_triangular": lambda a, s, b: L.solve_triangular(a, b, upper=True),
    "lu": lambda a, s, b: L.lu(a)[1:], "lu_factor": lambda a, s, b: L.lu_factor(a)[0], "lu_solve": lambda a, s, b: L.lu_solve(*L.lu_factor(a), b),
    "lu_unpack": lambda a, s, b: torch.lu_unpack(*L.lu_factor(a))[1:], "det": lambda a, s, b: L.det(a), "slogdet": lambda a, s, b: L.slogdet(s),
    "logdet": lambda a, s, b: torch.logdet(s.real), "qr": lambda a, s, b: L.qr(b), "qr's r": lambda a, s, b: L.qr(a.real, "r").R,
    "svdvals": lambda a, s, b: L.svdvals(b), "svd": lambda a, s, b: [x.abs() for x in L.svd(b, full_matrices=False)], "eigvalsh": lambda a, s, b: L.eigvalsh(s),
    "eigh": lambda a, s, b: L.eigh(s).eigenvectors.abs(),
    "pinv": lambda a, s, b: L.pinv(b), "pinv, hermitian": lambda a, s, b: L.pinv(s, hermitian=True), "matrix_power": lambda a, s, b: L.matrix_power(a, -2),
    "lstsq": lambda a, s, b: L.lstsq(a[..., :3], b).solution, "lstsq, wide": lambda a, s, b: L.lstsq(a[..., :3, :], b[..., :3, :]).solution,
    "cond": lambda a, s, b: L.cond(a), "cond, 1": lambda a, s, b: L.cond(a, 1), "nuclear norm": lambda a, s, b: L.matrix_norm(a, "nuc"),
    "spectral norm": lambda a, s, b: L.matrix_norm(a, 2), "multi_dot": lambda a, s, b: L.multi_dot([a.reshape(-1, 4)[:4], s.reshape(-1, 4)[:4], b.reshape(-1, 2)[:4]]),
    "tensorinv": lambda a, s, b: L.tensorinv(a.reshape(-1, 4, 4)[0].reshape(2, 2, 4)), "cross": lambda a, s, b: L.cross(a[..., :3], s[..., :3]),
}  # fmt: skip


NO_GRADIENT = {"qr's r", "cond, 1"}
"""Not in torch either."""


@pytest.mark.parametrize("dtype, batch", [(F64, ()), (F64, (3,)), (C128, (2,))], ids=["one", "batch", "complex"])
@pytest.mark.parametrize("name", SOLVERS)
def test_linear_algebra(alice: sy.VirtualWorker, name: str, dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    a, s, b = matrices(dtype, *batch)
    check(alice, SOLVERS[name], a, s, b, grads=name not in NO_GRADIENT)


def test_a_hermitian_matrix_is_read_by_one_triangle(bob: sy.VirtualWorker) -> None:
    _, s, _ = matrices(C128)
    check(bob, lambda s: L.eigvalsh(s, "U"), s, grads=False)


def test_what_has_no_gradient(bob: sy.VirtualWorker) -> None:
    a, _, b = matrices(F64, 2)
    deficient = a.clone()
    deficient[0, 3] = deficient[0, 0]
    check(bob, lambda a: L.matrix_rank(a), deficient, grads=False)
    check(bob, lambda a: L.matrix_rank(a, atol=2.0), deficient, grads=False)
    check(bob, lambda a, b: L.lstsq(a, b)[::2], a[..., :3], b, grads=False)
    check(bob, lambda a, b: L.lstsq(a, b).solution, deficient, b, grads=False)
    check(bob, lambda a, b: L.lstsq(a, b[..., 0]).solution, a[..., :3], b, grads=False)
    check(bob, lambda a: L.inv_ex(a), a, grads=False)


@pytest.mark.parametrize("driver", [None, "gelsy", "gels", "gelsd", "gelss"])
@pytest.mark.parametrize("dtype", [F64, C128])
def test_what_else_a_driver_of_least_squares_gives(bob: sy.VirtualWorker, driver: str | None, dtype: torch.dtype) -> None:
    a, _, b = matrices(dtype, 2)
    for left, right in ((a, b), (a[..., :3, :], b[..., :3, :])):
        check(bob, lambda a, b: tuple(L.lstsq(a, b, driver=driver)), left, right, grads=False)
    tall = L.lstsq(a[..., :3], b, driver=driver), L.lstsq(a[..., :3].send(bob), b.send(bob), driver=driver)  # type: ignore[attr-defined]
    for name, here, there in zip(("solution", "residuals", "rank", "values"), *tall, strict=True):
        if name != "residuals" or driver not in ("gelsd", "gelss"):
            torch.testing.assert_close(there.get(), here, rtol=1e-8, atol=1e-9)


ERRORS: dict[str, tuple[Function, torch.Tensor]] = {
    "inv": (L.inv, torch.zeros(2, 2)), "solve": (lambda x: L.solve(x, x), torch.zeros(2, 2)), "cholesky": (L.cholesky, -torch.eye(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_with_the_value(bob: sy.VirtualWorker, name: str) -> None:
    function, wrong = ERRORS[name]
    with pytest.raises(RuntimeError):
        function(wrong)
    there = function(wrong.send(bob)) * 2
    with pytest.raises(RuntimeError, match="on bob"):
        there.get()


def test_general_eigenvalues_are_refused(bob: sy.VirtualWorker) -> None:
    """LAPACK's routine ends the process on some elements, whosever it is."""
    for function in (L.eigvals, L.eig):
        with pytest.raises(OperatorNotReviewedError):
            function(torch.eye(3).send(bob))


def test_shapes_are_checked_at_the_call(alice: sy.VirtualWorker) -> None:
    for function, operands in ((L.inv, [torch.ones(2, 3)]), (L.solve, [torch.eye(3), torch.ones(2, 2)])):
        with pytest.raises(RuntimeError, match="linalg"):
            function(*[x.send(alice) for x in operands])


# -- transforms

TRANSFORMS = ["fft", "ifft", "rfft", "ihfft", "fft2", "ifft2", "rfft2", "fftn", "ifftn", "rfftn"]
INVERSES = ["irfft", "hfft", "irfft2", "irfftn", "fft", "ifft", "fftn", "ifftn"]


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_real_signals(alice: sy.VirtualWorker, name: str, norm: str) -> None:
    transform = getattr(torch.fft, name)
    check(alice, lambda x: transform(x, norm=norm), torch.randn(3, 4, 5, dtype=F64))
    check(alice, lambda x: transform(x.mT, norm=norm), torch.randn(4, 6, dtype=F64))


@pytest.mark.parametrize("name", INVERSES)
def test_transforms_of_spectra(alice: sy.VirtualWorker, name: str) -> None:
    transform = getattr(torch.fft, name)
    check(alice, transform, torch.randn(3, 4, 5, dtype=C128))
    check(alice, lambda x: transform(x.transpose(0, 1)), torch.randn(4, 6, dtype=C128))


def test_transforms_over_chosen_dimensions_and_sizes(alice: sy.VirtualWorker) -> None:
    x = torch.randn(3, 4, 5, dtype=F64)
    check(alice, lambda x: torch.fft.rfftn(x, dim=(2, 0)), x)
    check(alice, lambda x: torch.fft.fft(x, n=7, dim=0), x)
    check(alice, lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1), n=4, dim=1), x)
    check(alice, lambda x: torch.fft.irfftn(torch.fft.rfftn(x), s=x.shape), x)
    check(alice, lambda x: torch.fft.fftshift(torch.fft.fft2(x)), x)
    a, b = torch.randn(8, dtype=F64), torch.randn(8, dtype=F64)
    check(alice, lambda a, b: torch.fft.irfft(torch.fft.rfft(a) * torch.fft.rfft(b), n=8), a, b)


# -- complex numbers

NUMBERS: dict[str, Function] = {
    "times a number": lambda c, x: c * 2j, "a real one times a number": lambda c, x: x * (1 - 2j), "a number less it": lambda c, x: (3 + 1j) - c,
    "divided": lambda c, x: c / (2 + 1j), "plus a tensor without dimensions": lambda c, x: c + torch.tensor(1 + 1j), "power": lambda c, x: c ** (1 + 0.5j),
    "conj": lambda c, x: c.conj() * c, "angle": lambda c, x: c.angle(), "abs": lambda c, x: c.abs(), "real and imag": lambda c, x: [c.real, c.imag],
    "complex": lambda c, x: torch.complex(x, x * 2), "polar": lambda c, x: torch.polar(x.abs(), x), "view_as_real": lambda c, x: torch.view_as_real(c),
    "view_as_complex": lambda c, x: torch.view_as_complex(torch.stack([x, -x], -1)), "vdot": lambda c, x: torch.vdot(c, c * 1j), "matmul of mH": lambda c, x: c[None].mH @ c[None],
    "exp": lambda c, x: (c * 1j).exp(), "sgn": lambda c, x: c.sgn(), "addcmul": lambda c, x: torch.addcmul(c, c, c, value=2j), "add with alpha": lambda c, x: torch.add(c, c, alpha=1j),
    "where": lambda c, x: torch.where(x > 0, c, 0j), "full_like": lambda c, x: torch.full_like(c, 2 - 1j) * c,
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_complex_numbers(bob: sy.VirtualWorker, name: str) -> None:
    check(bob, NUMBERS[name], torch.randn(4, dtype=C128), torch.randn(4, dtype=F64))


def test_reading_and_writing_complex_numbers(bob: sy.VirtualWorker) -> None:
    c = torch.randn(3, dtype=C128)
    there = c.send(bob)
    assert there[1].item() == c[1].item() == complex(there[1])
    there[0] = 2j
    there.add_(1j)
    local = c.clone()
    local[0] = 2j
    assert torch.equal(there.get_copy(), local.add_(1j))
    with bob:
        full = torch.full((2,), 1j)
    assert torch.equal(full.get(), torch.full((2,), 1j))
    assert torch.equal(c.conj().send(bob).get(), c.conj()) and torch.equal(c.conj().imag.send(bob).get(), -c.imag)
    there.get()
    with pytest.raises(ObjectNotFoundError):
        there.conj()


def test_a_plan_with_complex_numbers(bob: sy.VirtualWorker) -> None:
    @sy.func2plan()
    def turn(x: torch.Tensor) -> torch.Tensor:
        return L.inv(x) * 1j + torch.fft.fft(x).conj()

    x = torch.randn(3, 3, dtype=F64)
    for _ in range(3):
        torch.testing.assert_close(turn(x.send(bob)).get(), L.inv(x) * 1j + torch.fft.fft(x).conj())
