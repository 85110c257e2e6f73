"""A plan of tensors at several workers: one call at each, on what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from syftlite._torch import TreeSpec, tree_flatten, tree_unflatten
from syftlite.errors import TensorsNotCollocatedError
from syftlite.remote.multi import MultiPointerTensor, combine_pointers


def at_each(call: Callable[[tuple[Any, ...]], Any], leaves: Sequence[Any], structure: TreeSpec, name: str) -> Any:
    """What ``call`` gives of each worker's arguments, its tensors as multi-pointers. Raises `TensorsNotCollocatedError` unless all are at
    the same workers."""
    multis = [leaf for leaf in leaves if isinstance(leaf, MultiPointerTensor)]
    places = [{pointer.location for pointer in multi.child.values()} for multi in multis]
    if any(place != places[0] for place in places):
        told = "; ".join(", ".join(multi.child) for multi in multis)
        raise TensorsNotCollocatedError(f"{name} is called with tensors at different workers ({told}): send() all to the same ones")
    results = []
    for worker in multis[0].child:
        here = [leaf.child[worker] if isinstance(leaf, MultiPointerTensor) else leaf for leaf in leaves]
        results.append(tree_flatten(call(tree_unflatten(here, structure))))
    parts = zip(*[flat for flat, _ in results], strict=True)
    return tree_unflatten([combine_pointers(*part) for part in parts], results[0][1])
