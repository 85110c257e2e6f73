"""What is written as an index: numbers, lists of them and truths go where the tensor is; vectors of here stay."""

from typing import Any

import pytest
import torch

import syftlite as sy
from syftlite.errors import LocalTensorMixedError

LISTED: list[Any] = [
    ([[0, 1], [1, 2]],), ([[0], [1]], [0, 1]), range(2), (range(2), slice(None), (0, 1)), ([],), ([[]],), ((),), [0, 2], [True, False, True],
]  # fmt: skip
TRUTHS: list[Any] = [
    True, False, (True, True), (True, False), (True, slice(None), True), (1, True), (slice(None), True, 1), (True, [0, 1]), (False, 0),
    (None, True, ..., 2), (slice(None), False, [0]), torch.tensor(True), (torch.tensor(False), 1),
]  # fmt: skip


@pytest.mark.parametrize("index", [*LISTED, *TRUTHS], ids=repr)
def test_an_index_of_numbers_is_as_it_is_here(bob: sy.VirtualWorker, index: Any) -> None:
    whole = torch.arange(60.0).reshape(3, 4, 5)
    here, there = whole.clone().requires_grad_(), whole.send(bob).requires_grad_()
    mine, theirs = here[index], there[index]
    assert (theirs.shape, theirs.stride()) == (mine.shape, mine.stride())
    assert torch.equal(theirs.detach().get_copy(), mine)
    mine.square().sum().backward()
    theirs.square().sum().backward()
    assert torch.equal(there.grad.get(), here.grad)
    here, there = whole.clone(), whole.send(bob)
    here[index] = there[index] = -1.0
    assert torch.equal(there.get(), here)


def test_a_truth_may_be_remote(bob: sy.VirtualWorker) -> None:
    x, truth = torch.arange(6.0).reshape(2, 3).send(bob), torch.tensor(True).send(bob)
    assert torch.equal(x[truth].get(), torch.arange(6.0).reshape(1, 2, 3))
    assert torch.equal(sy.func2plan()(lambda x: x[True, 1] * 2)(x).get(), torch.tensor([[6.0, 8.0, 10.0]]))


@pytest.mark.parametrize("index", [torch.tensor([0]), (True, torch.tensor([0])), (True, slice(None), torch.tensor([[1]]))])
def test_a_vector_stays_here(bob: sy.VirtualWorker, index: Any) -> None:
    with pytest.raises(LocalTensorMixedError):
        torch.ones(2, 3, 4).send(bob)[index]


@pytest.mark.parametrize("pieces", [lambda x: x.unbind(-1), lambda x: x.split(2, dim=-1)], ids=["unbind", "split"])
def test_more_pieces_than_a_message_names(bob: sy.VirtualWorker, pieces: Any) -> None:
    x = torch.arange(2 * 8299.0).view(2, 8299)
    found, expected = pieces(x.send(bob)), pieces(x)
    assert [p.shape for p in found] == [p.shape for p in expected]
    for at in (0, 4095, 4096, -1):
        assert torch.equal(found[at].get(), expected[at])
