"""Connectionist temporal classification, whose kernel trusts labels and leaves memory unwritten: by its recursion.

    alpha_t(s) = log(e^alpha_t-1(s) + e^alpha_t-1(s-1) + e^alpha_t-1(s-2)) + log p_t(l_s)      over the labels with blanks between
    loss       = -log(e^alpha_T(2n) + e^alpha_T(2n-1))                                         of n labels

A. Graves et al., Connectionist Temporal Classification, ICML 2006. A step past which a label may not be skipped has no third term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from syftlite._torch import aten
from syftlite.remote.handle import RemoteTensor
from syftlite.remote.rules import at_worker, rule_of

NONE = -1e30
"""The logarithm of no probability: of an infinite one there is no gradient."""


def _numbers(lengths: Any) -> list[int]:
    """Lengths are shapes: they are read, which waits where they are at a worker."""
    if isinstance(lengths, torch.Tensor):
        lengths = lengths.get_copy() if isinstance(lengths, RemoteTensor) else lengths  # type: ignore[attr-defined]
        return [int(n) for n in lengths.reshape(-1).tolist()]
    return list(lengths)


def _checked(log_probs: torch.Tensor, targets: torch.Tensor, steps: Sequence[int], counts: Sequence[int], blank: int) -> None:
    longest, batch, classes = log_probs.shape
    if len(steps) != batch or len(counts) != batch or not 0 <= blank < classes:
        raise RuntimeError(f"ctc_loss of {batch} sequences takes lengths of as many inputs and targets, and a blank below {classes}")
    if any(not 0 <= n <= longest for n in steps) or any(n < 0 for n in counts):
        raise RuntimeError(f"ctc_loss: lengths of inputs are from 0 to {longest}, of targets from 0 on")
    rows = targets.dim() == 2
    if (rows and (targets.shape[0] != batch or max(counts, default=0) > targets.shape[1])) or (not rows and len(targets) != sum(counts)):
        raise RuntimeError(f"ctc_loss: targets {list(targets.shape)} do not hold labels of the lengths {counts}")


def _rows(targets: torch.Tensor, counts: Sequence[int], blank: int, like: torch.Tensor) -> torch.Tensor:
    """Labels one after another, or in rows, as rows (n, most labels) with blanks behind."""
    most = max(counts, default=0)
    if targets.dim() == 1:
        parts = targets.split(list(counts))
        return torch.stack([F.pad(part, (0, most - count), value=blank) for part, count in zip(parts, counts, strict=True)])
    counted = at_worker(torch.arange(most) < torch.tensor(counts).unsqueeze(1), like)
    return torch.where(counted, targets[:, :most], blank)


def _earlier(alpha: torch.Tensor, by: int) -> torch.Tensor:
    return F.pad(alpha[:, :-by], (by, 0), value=NONE)[:, : alpha.shape[1]]


def _likelihoods(log_probs: torch.Tensor, labels: torch.Tensor, steps: Sequence[int], counts: Sequence[int], blank: int) -> torch.Tensor:
    """(n,) logarithms of the probability of ``labels`` (n, most)."""
    longest, batch, _ = log_probs.shape
    between = torch.full_like(labels, blank)
    states = F.pad(torch.stack([between, labels], 2).flatten(1), (0, 1), value=blank)
    size = states.shape[1]
    skips = F.pad(states[:, 2:] != states[:, :-2], (2, 0)) & (states != blank) if size > 2 else torch.zeros_like(states, dtype=torch.bool)
    emitted = log_probs.gather(2, states.unsqueeze(0).expand(longest, batch, size)).clamp_min(NONE)
    begun = at_worker((torch.arange(size) < 2).expand(batch, size).contiguous(), log_probs)
    alphas = [torch.where(begun, emitted[0], NONE)]
    for step in range(1, max(steps, default=1)):
        alpha = alphas[-1]
        skipped = torch.where(skips, _earlier(alpha, 2), NONE) if size > 2 else torch.full_like(alpha, NONE)
        alphas.append(torch.stack([alpha, _earlier(alpha, 1), skipped]).logsumexp(0) + emitted[step])
    lasts = torch.stack([alphas[max(n, 1) - 1][row] for row, n in enumerate(steps)])
    ends = at_worker(torch.tensor([[2 * n, max(2 * n - 1, 0)] for n in counts]), log_probs)
    one = at_worker(torch.tensor([[False, n == 0] for n in counts]), log_probs)
    return lasts.gather(1, ends).masked_fill(one, NONE).logsumexp(1)


def _nothing_of(x: torch.Tensor) -> torch.Tensor:
    """0 with the gradient of ``x``. By operators alone: ``x - x.detach()`` is none where a recorded program is differentiated."""
    fine = torch.finfo(x.dtype).eps ** -2
    return (x.frac() * fine).frac() / fine


@rule_of(aten.ctc_loss.IntList, aten.ctc_loss.Tensor)
def _ctc(
    func: Any, log_probs: torch.Tensor, targets: torch.Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: int = 1,
    zero_infinity: bool = False,
) -> torch.Tensor:  # fmt: skip
    """As torch's, whose gradient is that of unnormalised probabilities: it has a term for each of them."""
    steps, counts = _numbers(input_lengths), _numbers(target_lengths)
    single = log_probs.dim() == 2
    if single:
        log_probs, targets = log_probs.unsqueeze(1), targets.reshape(1, -1)
    _checked(log_probs, targets, steps, counts, blank)
    labels = _rows(at_worker(targets, log_probs).long(), counts, blank, log_probs)
    seen = at_worker((torch.arange(log_probs.shape[0]).unsqueeze(1) < torch.tensor(steps)).to(log_probs.dtype), log_probs)
    mass = (log_probs.exp().sum(2) * seen).sum(0)
    losses = _nothing_of(mass) - _likelihoods(log_probs, labels, steps, counts, blank)
    if 0 in steps:
        ended = at_worker(torch.tensor([n == 0 for n in steps]), log_probs)
        of_nothing = at_worker(torch.tensor([0.0 if n == 0 else math.inf for n in counts], dtype=log_probs.dtype), log_probs)
        losses = torch.where(ended, of_nothing, losses)
    losses = torch.where(losses > -NONE / 2, 0.0 if zero_infinity else math.inf, losses)
    if reduction == 1:
        sizes = at_worker(torch.tensor([max(n, 1) for n in counts], dtype=losses.dtype), log_probs)
        return (losses / sizes).mean()
    return losses.sum() if reduction == 2 else losses.squeeze(0) if single else losses
