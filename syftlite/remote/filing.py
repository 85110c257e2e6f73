"""Plans as what a file holds: recorded programs and the values of their state, no code (storage/plans.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from syftlite._torch import TreeSpec, tree_flatten, tree_unflatten
from syftlite.errors import TensorsNotCollocatedError
from syftlite.ops.spec import Spec
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recording import Program
from syftlite.remote.transfer import read
from syftlite.storage import plans as files


def form(leaf: Any) -> Any:
    """What a program holds of an input: of a tensor its form, of anything else its value. Raises TypeError for what has no hash."""
    if isinstance(leaf, torch.Tensor):
        return Spec.of(leaf)
    hash(leaf)
    return type(leaf), leaf, leaf.hex() if type(leaf) is float else ""  # 0.0 is not -0.0


def storable(key: tuple[Any, ...], program: Program) -> files.StoredProgram:
    """``program``, recorded for inputs of this key, as a file holds it."""
    structure: TreeSpec = key[0]
    inputs = [k if isinstance(k, Spec) else k[1] for k in key[1 : 1 + structure.num_leaves]]
    given = sum(isinstance(leaf, Spec) for leaf in inputs)
    return files.StoredProgram(
        tree_unflatten(inputs, structure),
        program.specs[given:],
        program.constants,
        program.code,
        program.results,
        program.result_specs,
        tree_unflatten(range(len(program.results)), program.structure),
    )


def recorded(stored: files.StoredProgram, state: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], Program]:
    """(the form of its inputs and state, the program) that ``stored`` describes."""
    inputs, structure = tree_flatten(stored.inputs)
    keys = [leaf if isinstance(leaf, Spec) else form(leaf) for leaf in inputs]
    operands = [Spec.contiguous(leaf.shape, leaf.dtype) for leaf in inputs if isinstance(leaf, Spec)]
    program = Program(
        (*operands, *stored.state), stored.constants, stored.code, stored.results, stored.result_specs, tree_flatten(stored.outputs)[1]
    )
    return (structure, *keys, *[Spec.of(t) for t in state]), program


def values_of(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The values of ``tensors``, from wherever they are: one round trip."""
    remote = [t for t in tensors if isinstance(t, PointerTensor)]
    places = sorted({t.location.id for t in remote})
    if len(places) > 1:
        raise TensorsNotCollocatedError(f"the plan's state is at {', '.join(places)}: move() it to one of them")
    values = iter(read(remote, take=False) if remote else ())
    return [next(values) if isinstance(t, PointerTensor) else t.detach() for t in tensors]
