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


def _gradients(outputs: tuple[Any, ...], given: Any) -> Any:
    """What the pass begins with: 1 for a number, if nothing is ``given``."""
    found = _several(given) if given is not None else (None,) * len(outputs)
    number = [isinstance(output, torch.Tensor) and output.numel() == 1 for output in outputs]
    pairs = zip(outputs, found, number, strict=True)
    return tuple(torch.ones_like(output) if begins is None and one else begins for output, begins, one in pairs)


def _edges(tensors: tuple[Any, ...]) -> Any:
    """The edges of ``tensors``; None if torch has an error for one of them."""
    if not _FROM_EDGES or not tensors or not all(isinstance(t, GradientEdge) or t.requires_grad for t in tensors):
        return None
    return tuple(t if isinstance(t, GradientEdge) else get_gradient_edge(t) for t in tensors)


def backward(
    tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False, inputs: Any = None
) -> None:  # fmt: skip
    """`torch.autograd.backward`."""
    outputs = _several(tensors)
    edges = _edges(outputs) if inputs is None else None
    if edges is None:
        with below_functions():
            torch.autograd.backward(tensors, grad_tensors, retain_graph, create_graph, inputs=inputs)
        return
    torch.autograd.backward(edges, _gradients(outputs, grad_tensors), retain_graph, create_graph)


def _method(x: Any, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False, inputs: Any = None) -> None:
    backward(x, gradient, retain_graph, create_graph, inputs)


def grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False, only_inputs: bool = True,
    allow_unused: Any = None, is_grads_batched: bool = False, materialize_grads: bool = False,
) -> Any:  # fmt: skip
    """`torch.autograd.grad`."""
    of, to = _several(outputs), _several(inputs)
    begin, end = _edges(of), _edges(to)
    if begin is None or end is None or is_grads_batched or materialize_grads or not only_inputs:
        with below_functions():
            return torch.autograd.grad(
                outputs, inputs, grad_outputs, retain_graph, create_graph, only_inputs, allow_unused, is_grads_batched, materialize_grads
            )
    return torch.autograd.grad(begin, end, _gradients(of, grad_outputs), retain_graph, create_graph, allow_unused=allow_unused)


PASSES: dict[Any, Callable[..., Any]] = {torch.Tensor.backward: _method, torch.autograd.backward: backward, torch.autograd.grad: grad}
"""By the function of torch."""
