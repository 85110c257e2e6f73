"""Rules for torch's recurrent layers: each way of each layer is a node (recurrent.py), one after the other.

    outputs, h      what `nn.LSTM`, `nn.GRU`, `nn.RNN` give; the last cell states have no form

Sequences are of one length, with rows along the axis that the layer takes for the batch; states that they begin with do not depend on
the input, and are the same for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite.serving.torch_call import Call, Value, rule


class Layers(NamedTuple):
    """What is the same for all layers of one module."""

    operator: str
    weights: list[Tensor]
    """In torch's order: to the input, to the hidden state, two biases or none; of each layer, and of each way in it."""
    biases: bool
    ways: int
    states: dict[str, Tensor]
    """``hidden`` and ``cell``: (layers x ways, H)."""
    static: dict[str, Any]

    def named(self, at: int) -> dict[str, Tensor | None]:
        """The weights of the node of the layer and way that ``at`` counts."""
        each = 4 if self.biases else 2
        to_input, to_hidden, *biases = self.weights[at * each : (at + 1) * each]
        named: dict[str, Tensor | None] = {"to_input": to_input, "to_hidden": to_hidden}
        if biases and self.operator == "gru":
            size = to_hidden.shape[1]
            named["bias"] = torch.cat([biases[0][: 2 * size] + biases[1][: 2 * size], biases[0][2 * size :]])
            named["hidden_bias"] = biases[1][2 * size :]
        elif biases:
            named["bias"] = biases[0] + biases[1]
        return named | {name: state[at] for name, state in self.states.items() if bool(state[at].any())}


@rule("lstm", "gru", "rnn_tanh", "rnn_relu", anywhere=True)
def _recurrent(
    at: Call, x: Value, hx: Any, weights: Any, has_biases: Any, num_layers: Any, dropout: Any, train: Any, bidirectional: Any,
    batch_first: Any = None,
) -> list[Value | None]:  # fmt: skip
    given = hx if isinstance(hx, list) else [hx]
    at.refuse(batch_sizes=batch_first is None or not isinstance(weights, list))
    at.refuse(proj_size=any(state.shape[-1] != given[0].shape[-1] for state in given), batch_first=x.batch != (0 if batch_first else 1))
    at.refuse(dropout=bool(dropout and train))
    known = [w for value in weights if (w := at.weight(value, "weight")) is not None]
    names = ("hidden", "cell") if at.name == "lstm" else ("hidden",)
    states = {name: _of_all(at, state, f"{name} state") for name, state in zip(names, given, strict=True)}
    operator = "rnn" if at.name.startswith("rnn") else at.name
    static = {"relu": at.name == "rnn_relu"} if operator == "rnn" else {}
    return _run(at, x, Layers(operator, known, bool(has_biases), 2 if bidirectional else 1, states, static), num_layers)


def _of_all(at: Call, state: Value, role: str) -> Tensor:
    """A state, (layers, rows, H), without the rows."""
    found = at.weight(state, role)
    assert found is not None
    at.refuse(**{role.replace(" ", "_"): not bool((found == found[:, :1]).all())})
    return found[:, 0]


def _run(at: Call, x: Value, layers: Layers, count: int) -> list[Value | None]:
    """The outputs, and the last hidden states."""
    source, last = x.name, []
    length = x.rows_first[1]
    for layer in range(count):
        outputs = []
        for way in range(layers.ways):
            named = layers.named(layer * layers.ways + way)
            made = at.build.add(layers.operator, at.layer, [source], named, reverse=way == 1, **layers.static)
            outputs.append(made)
            end = 0 if way else length - 1
            last.append(at.build.add("slice", at.layer, [made], axis=1, start=end, stop=end + 1))
        source = _joined(at, outputs, 2)
    shape = (len(last), x.shape[x.batch], int(layers.weights[1].shape[1]))
    return [at.result(source), Value(_joined(at, last, 1), shape, None, 1), None][: 3 if layers.operator == "lstm" else 2]


def _joined(at: Call, names: Sequence[str], axis: int) -> str:
    return names[0] if len(names) == 1 else at.build.add("concat", at.layer, names, axis=axis)
