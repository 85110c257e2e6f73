"""backward() and grad() from tensors of a layer that re-expresses functions: these are so while the pass runs, too.

What a program does on the way back, in a hook or where a checkpoint computes again, is written like the rest of it. Of tensors torch would
run the pass as one function of the layer's, below all others. Of their gradient edges it is a call like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from syftlite._torch import below_functions

_FROM_EDGES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6)


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, (torch.Tensor, GradientEdge)) or value is None else tuple(value)


LIFTED: dict[type, Callable[[Any, Any], Any]] = {}
"""By layer: (output, public gradient) -> that gradient in the layer."""


def _lifted(output: Any, gradient: Any) -> Any:
    lift = LIFTED.get(type(output))
    public = type(gradient) is torch.Tensor and gradient.is_floating_point() and not gradient.requires_grad
    return lift(output, gradient) if lift is not None and public else gradient


def _gradients(outputs: tuple[Any, ...], given: Any) -> Any:
    """What the pass begins with: 1 for a number, if nothing is ``given``."""
    found = _several(given) if given is not None else (None,) * len(outputs)
    number = [isinstance(output, torch.Tensor) and output.numel() == 1 for output in outputs]
    pairs = zip(outputs, found, number, strict=True)
    return tuple(torch.ones_like(output) if begins is None and one else _lifted(output, begins) for output, begins, one in pairs)


def _edges(tensors: tuple[Any, ...]) -> Any:
    """The edges of ``tensors``; None if torch has an error for one of them."""
    if not _FROM_EDGES or not tensors or not all(isinstance(t, GradientEdge) or t.requires_grad for t in tensors):
        return None
    return tuple(t if isinstance(t, GradientEdge) else get_gradient_edge(t) for t in tensors)


def backward(
    tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False, inputs: Any = None
) -> None:  # fmt: skip
    """`torch.autograd.backward`."""
    outputs, ends = _several(tensors), () if inputs is None else _several(inputs)
    begin, end = _edges(outputs), _edges(ends) if inputs is not None else ()
    if begin is None or end is None:
        with below_functions():
            torch.autograd.backward(tensors, grad_tensors, retain_graph, create_graph, inputs=inputs)
        return
    for tensor in ends:
        if isinstance(tensor, torch.Tensor):
            with below_functions():
                tensor.retain_grad()
    torch.autograd.backward(begin, _gradients(outputs, grad_tensors), retain_graph, create_graph, inputs=end or None)


def _method(x: Any, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False, inputs: Any = None) -> None:
    backward(x, gradient, retain_graph, create_graph, inputs)


def grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False, only_inputs: bool = True,
    allow_unused: Any = None, is_grads_batched: bool = False, materialize_grads: bool = False,
) -> Any:  # fmt: skip
    """`torch.autograd.grad`."""
    of, to = _several(outputs), _several(inputs)
    begin, end = _edges(of), _edges(to)
    if begin is None or end is None or not only_inputs or (is_grads_batched and grad_outputs is None):
        with below_functions():
            return torch.autograd.grad(
                outputs, inputs, grad_outputs, retain_graph, create_graph, only_inputs, allow_unused, is_grads_batched, materialize_grads
            )
    allow = materialize_grads or allow_unused

    def once(given: Any, retain: Any) -> Any:
        return torch.autograd.grad(begin, end, _gradients(of, given), retain, create_graph, allow_unused=allow)

    found = _batched(once, _several(grad_outputs), retain_graph) if is_grads_batched else once(grad_outputs, retain_graph)
    return tuple(map(_materialized, found, to)) if materialize_grads else found


def _batched(once: Callable[[Any, Any], Any], given: tuple[Any, ...], retain_graph: Any) -> Any:
    """One pass for each of a batch of gradients that it begins with."""
    rows = list(zip(*(gradient.unbind(0) for gradient in given), strict=True))
    each = [once(row, True if place < len(rows) else retain_graph) for place, row in enumerate(rows, 1)]
    return tuple(None if column[0] is None else torch.stack(column) for column in zip(*each, strict=True))


def _materialized(gradient: Any, of: Any) -> Any:
    if gradient is None and not isinstance(of, torch.Tensor):
        raise RuntimeError("materialize_grads cannot be used when the given input is a GradientEdge")
    return torch.zeros_like(of) if gradient is None else gradient


PASSES: dict[Any, Callable[..., Any]] = {torch.Tensor.backward: _method, torch.autograd.backward: backward, torch.autograd.grad: grad}
"""By the function of torch."""
