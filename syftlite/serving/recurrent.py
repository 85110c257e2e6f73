"""Recurrent layers, of one layer and one way each: (N, L, D) -> (N, L, H), the hidden state after each step.

    lstm    i, f, g, o = W x + U h + b       c = sigmoid(f) c + sigmoid(i) tanh(g)       h = sigmoid(o) tanh(c)
    gru     r, z = sigmoid(W x + U h + b)    n = tanh(W x + b + r (U h + d))             h = n + z (h - n)
    rnn     h = tanh(W x + U h + b), or relu

(Hochreiter & Schmidhuber, "Long short-term memory", 1997; Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014;
gates in torch's order.) W x of all steps is one product, and so are the sigmoids of a step. ``hidden`` and ``cell`` (H,) are what a row
begins with, else 0. ``reverse``: the last step is the first. Every step takes its rounds after those of the step before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from syftlite.serving.operators import operator

Step = Callable[[Tensor, Any, Any], tuple[Tensor, Any]]
"""(W x of a step, h, c) -> (h, c); None for a state that is 0."""


def _run(given: Tensor, step: Step, hidden: Tensor | None, cell: Tensor | None, reverse: bool) -> Tensor:
    length, outputs = given.shape[1], []
    h, c = (None if state is None else state.expand(given.shape[0], -1) for state in (hidden, cell))
    for at in reversed(range(length)) if reverse else range(length):
        h, c = step(given[:, at], h, c)
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs, 1)


@operator("to_input", "to_hidden", "bias?", "hidden?", "cell?")
def _lstm(
    x: Tensor, to_input: Tensor, to_hidden: Tensor, bias: Tensor | None = None, hidden: Tensor | None = None, cell: Tensor | None = None,
    *, reverse: bool = False,
) -> Tensor:  # fmt: skip
    """to_input (4 H, D), to_hidden (4 H, H), bias (4 H,)."""
    size = to_hidden.shape[1]

    def step(gates: Tensor, h: Any, c: Any) -> tuple[Tensor, Any]:
        i, f, g, o = (gates if h is None else gates + F.linear(h, to_hidden)).split(size, -1)
        i, f, o = torch.cat([i, f, o], -1).sigmoid().split(size, -1)
        c = i * g.tanh() if c is None else f * c + i * g.tanh()
        return o * c.tanh(), c

    return _run(F.linear(x, to_input, bias), step, hidden, cell, reverse)


@operator("to_input", "to_hidden", "bias?", "hidden_bias?", "hidden?")
def _gru(
    x: Tensor, to_input: Tensor, to_hidden: Tensor, bias: Tensor | None = None, hidden_bias: Tensor | None = None,
    hidden: Tensor | None = None, *, reverse: bool = False,
) -> Tensor:  # fmt: skip
    """to_input (3 H, D), to_hidden (3 H, H), bias (3 H,), hidden_bias (H,), which is that of U h in n."""
    size = to_hidden.shape[1]

    def step(gates: Tensor, h: Any, c: Any) -> tuple[Tensor, Any]:
        opened, new = gates.split([2 * size, size], -1)
        again = hidden_bias
        if h is not None:
            of_state, again = F.linear(h, to_hidden).split([2 * size, size], -1)
            opened = opened + of_state
            again = again if hidden_bias is None else again + hidden_bias
        r, z = opened.sigmoid().split(size, -1)
        n = (new if again is None else new + r * again).tanh()
        return n - z * n if h is None else n + z * (h - n), None

    return _run(F.linear(x, to_input, bias), step, hidden, None, reverse)


@operator("to_input", "to_hidden", "bias?", "hidden?")
def _rnn(
    x: Tensor, to_input: Tensor, to_hidden: Tensor, bias: Tensor | None = None, hidden: Tensor | None = None, *, reverse: bool = False,
    relu: bool = False,
) -> Tensor:  # fmt: skip
    """to_input (H, D), to_hidden (H, H), bias (H,)."""

    def step(gates: Tensor, h: Any, c: Any) -> tuple[Tensor, Any]:
        gates = gates if h is None else gates + F.linear(h, to_hidden)
        return gates.relu() if relu else gates.tanh(), None

    return _run(F.linear(x, to_input, bias), step, hidden, None, reverse)
