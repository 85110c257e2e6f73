"""CTC by its recursion: torch's losses and gradients, whatever form its operands have."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import syftlite as sy

R = torch.randn
CASES = [
    ((8, 3, 5), [8, 7, 5], [3, 2, 1]),
    ((6, 2, 4), [6, 5], [0, 2]),  # one of no labels
    ((6, 2, 4), [6, 2], [4, 4]),  # one of too many
    ((4, 2, 3), [0, 4], [0, 1]),  # one of no steps
]


@pytest.mark.parametrize("reduction, zero, form, blank", [*itertools.product(("mean", "sum", "none"), (False, True), ("rows", "one after another"), (0, 2))])
@pytest.mark.parametrize("shape, steps, counts", CASES)
def test_ctc(
    bob: sy.VirtualWorker, shape: tuple[int, int, int], steps: list[int], counts: list[int], reduction: str, zero: bool, form: str, blank: int
) -> None:
    classes = torch.tensor([c for c in range(shape[2]) if c != blank])
    labels = classes[torch.randint(0, len(classes), (shape[1], max(counts)))]
    if form != "rows":
        labels = torch.cat([row[:count] for row, count in zip(labels, counts, strict=True)])
    logits, found = R(shape), []
    for place in (None, bob):
        x = (logits.log_softmax(2) if place is None else logits.log_softmax(2).send(place)).requires_grad_()
        lengths = [torch.tensor(steps), torch.tensor(counts)] if place is None or form == "rows" else [tuple(steps), tuple(counts)]
        loss = F.ctc_loss(x, labels if place is None else labels.send(place), *lengths, blank=blank, reduction=reduction, zero_infinity=zero)
        (grad,) = torch.autograd.grad((loss * 2).sum(), [x])
        found.append([loss.detach(), grad] if place is None else [loss.detach().get(), grad.get()])
    (loss, grad), theirs = found
    torch.testing.assert_close(theirs[0], loss, rtol=1e-4, atol=1e-5)
    if loss.isfinite().all():
        torch.testing.assert_close(theirs[1], grad, rtol=1e-3, atol=1e-5)


def test_lengths_at_the_worker_are_read(bob: sy.VirtualWorker) -> None:
    x, labels, steps, counts = R(5, 2, 4).log_softmax(2), torch.tensor([[1, 2], [3, 1]]), torch.tensor([5, 4]), torch.tensor([2, 1])
    there = F.ctc_loss(*[operand.send(bob) for operand in (x, labels, steps, counts)])
    torch.testing.assert_close(there.get(), F.ctc_loss(x, labels, steps, counts))


def test_one_sequence(bob: sy.VirtualWorker) -> None:
    x, labels = R(5, 4).log_softmax(1), torch.tensor([1, 2])
    for reduction in ("mean", "none"):
        there = F.ctc_loss(x.send(bob), labels.send(bob), (5,), (2,), reduction=reduction)
        torch.testing.assert_close(there.get(), F.ctc_loss(x, labels, torch.tensor(5), torch.tensor(2), reduction=reduction))


def test_what_does_not_fit_is_refused(bob: sy.VirtualWorker) -> None:
    x, labels = R(5, 2, 4).log_softmax(2).send(bob), torch.tensor([[1, 2], [3, 1]]).send(bob)
    for steps, counts, blank in (((6, 5), (2, 1), 0), ((5, 5), (3, 1), 0), ((5,), (2, 1), 0), ((5, 5), (2, 1), 4), ((5, 5), (2, -1), 0)):
        with pytest.raises(RuntimeError, match="ctc_loss"):
            F.ctc_loss(x, labels, steps, counts, blank=blank)
    with pytest.raises((IndexError, RuntimeError)):
        F.ctc_loss(x, torch.tensor([[1, 2], [4, 1]]).send(bob), (5, 5), (2, 1)).get()
