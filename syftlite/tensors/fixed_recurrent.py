"""`nn.LSTM` on FixedPrecisionTensors, whose kernel on processors takes memory. Other recurrent layers are made of what there is.

    i, f, g, o = W x + b + U h + d       c = sigmoid(f) c + sigmoid(i) tanh(g)       h = sigmoid(o) tanh(c)

(Hochreiter & Schmidhuber, "Long short-term memory", 1997.) W x of all steps is one product; so are the three sigmoids of a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from syftlite.tensors.fixed import FixedPrecisionTensor

Fixed = FixedPrecisionTensor


@Fixed.reexpresses(torch.lstm)
def lstm(
    x: Any, hx: Any, weights: Any, has_biases: Any, num_layers: Any, dropout: Any, train: Any, bidirectional: Any, batch_first: Any = None
) -> Any:
    """(outputs, last hidden states, last cell states) of (length, batch, features), or (batch, length, features)."""
    if batch_first is None or isinstance(hx, torch.Tensor):
        raise NotImplementedError("FixedPrecisionTensor knows LSTM of sequences of one length: pad them, in place of pack_padded_sequence")
    if hx[0].shape[-1] != hx[1].shape[-1]:
        raise NotImplementedError("FixedPrecisionTensor knows LSTM without proj_size: put a Linear after it")
    x = x.transpose(0, 1) if batch_first else x
    each, ways = (4 if has_biases else 2), (2 if bidirectional else 1)
    hidden, cells = [], []
    for layer in range(num_layers):
        outputs = []
        for way in range(ways):
            at = layer * ways + way
            out, h, c = _run(x, hx[0][at], hx[1][at], weights[at * each : (at + 1) * each], reverse=way == 1)
            outputs.append(out)
            hidden.append(h)
            cells.append(c)
        x = torch.cat(outputs, -1) if ways > 1 else outputs[0]
        if dropout and train and layer + 1 < num_layers:
            x = F.dropout(x, dropout)
    return x.transpose(0, 1) if batch_first else x, torch.stack(hidden), torch.stack(cells)


def _run(x: Any, h: Any, c: Any, weights: Any, reverse: bool) -> tuple[Any, Any, Any]:
    """One layer, one way: (outputs (length, batch, hidden), the last h, the last c)."""
    to_input, to_hidden, *biases = weights
    size, outputs = h.shape[-1], []
    given = F.linear(x, to_input, biases[0] if biases else None)
    for step in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        gates = given[step] + F.linear(h, to_hidden, biases[1] if biases else None)
        i, f, g, o = gates.split(size, -1)
        i, f, o = torch.cat([i, f, o], -1).sigmoid().split(size, -1)
        c = f * c + i * g.tanh()
        h = o * c.tanh()
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs), h, c
