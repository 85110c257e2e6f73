"""A conjugate of a pointer is a view of it: what is written to either the other has, as in torch."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import syftlite as sy
from syftlite.errors import NotOwnerError, PointerMisuseError

Z = torch.tensor([[1 + 2j, 3 - 1j], [0.5j, -2 + 0j]])


def _writes(z: Any) -> list[Any]:
    y, adjoint = z.conj(), z.mH
    real, imaginary, row, diagonal = y.real, y.imag, adjoint[1], y.diagonal()
    z.add_(1j)
    y[0] = 2 + 3j
    adjoint[1].mul_(1j)
    row.sub_(1)
    real.add_(5)
    imaginary.mul_(2)
    imaginary[1] = 7
    diagonal.fill_(1j)
    y.unbind(0)[1].add_(z[0])
    y += z
    z[1] = y[0]
    return [z, y, adjoint, real, imaginary, row, diagonal, y.conj(), y @ z, torch.stack([y, z]), y == z.conj()]


def _detached(z: Any) -> list[Any]:
    y = z.conj()
    z.data.mul_(2)
    y.data.add_(1)
    y.detach().add_(1j)
    copy.copy(y).mul_(1j)
    twin = copy.deepcopy(y)
    y.add_(3)
    return [z, y, twin, torch.add(y, 1, out=y), z]


def _without_graph(z: Any) -> list[Any]:
    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            x = z.clone()
            y = x.conj()
            x.mul_(2)
            before = y * 1
            y.add_(1)
            found += [x.clone(), y.clone(), before]
    return found


@pytest.mark.parametrize("program", [_writes, _detached, _without_graph])
def test_what_is_written_to_one_the_other_has(bob: sy.VirtualWorker, program: Callable[[Any], list[Any]]) -> None:
    for mine, theirs in zip(program(Z.clone()), program(Z.send(bob)), strict=True):
        assert (theirs.shape, theirs.dtype) == (mine.shape, mine.dtype)
        torch.testing.assert_close(theirs.get_copy(), mine.resolve_conj().resolve_neg())


def test_gradients(bob: sy.VirtualWorker) -> None:
    grads = []
    for x in (Z.clone().requires_grad_(), Z.send(bob).requires_grad_()):
        z = x * 1
        z.mH[1].mul_(2j)
        z.conj().imag.mul_(3)
        ((z @ z.mH).abs() ** 2).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[1].get(), grads[0])


def test_it_is_read_moved_and_planned_by_its_own_values(bob: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    z, conjugate = Z.send(bob), Z.conj().resolve_conj()
    before = bob.objects_count()
    y = z.conj()
    assert "conjugate of" in repr(y) and y.location is bob and bob.objects_count() == before  # nothing is sent
    plan = sy.func2plan()(lambda a: (a.conj(), a * 2))
    values = [y.get_copy(), y.copy().move(alice).get(), plan(z)[0].get(), plan(y)[1].get() / 2, y.copy().send(alice).get().get(), y.get(), z.conj().get_()]
    assert all(torch.equal(value, conjugate) for value in values) and torch.equal(z.get_copy(), Z)
    del y
    assert bob.objects_count() == before


def test_what_it_cannot_do(bob: sy.VirtualWorker) -> None:
    with pytest.raises(PointerMisuseError, match="cannot change the shape of a conjugate"):
        Z.send(bob).conj().t_()
    bob.load(Z, "#z")
    with pytest.raises(NotOwnerError):
        bob.search("#z")[0].conj().add_(1)
