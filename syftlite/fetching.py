"""Plans that are fetched: `worker.fetch_plan(plan.id)` gives what another session sent or an owner published, to run there or here.

    fetch_plan(id)               state that is at the worker stays there: borrowed, as it is now, not to be written to
    fetch_plan(id, copy=True)    state of one's own, copied once; it goes where the plan is called
    plan(pointers)               runs where they are
    plan(tensors)                runs at the local worker, in this process
"""

from __future__ import annotations

from typing import Any

import torch

from syftlite._torch import tree_flatten, tree_unflatten
from syftlite.errors import PlanError
from syftlite.plans import Plan
from syftlite.remote import offers, registry
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.worker import BaseWorker
from syftlite.storage import plans as files


class FetchedPlan(Plan):
    """A plan without its function: it runs what was recorded, for inputs like those."""

    _came = "fetched"

    @property
    def _runs(self) -> bool:
        return False

    def forward(self, *args: Any) -> Any:
        """Run it at the local worker."""
        leaves, structure = tree_flatten(args)
        if any(isinstance(leaf, PointerTensor) for leaf in leaves):  # it is being recorded
            raise PlanError(
                f"{self.name} was fetched without its function, for inputs {self._programs.inputs}: it cannot be recorded for others"
            )
        here = registry.local_worker()
        given = [here.send(leaf.detach()) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise PlanError(f"{self.name} runs where its inputs are, and it was given none: pass a tensor or a pointer")
        results, shape = tree_flatten(self._at_home()(*tree_unflatten(given, structure)))
        return tree_unflatten([result.get() for result in results], shape)

    def _at_home(self) -> Plan:
        """This plan with state that is here: itself, or a copy of the state as it is now."""
        return self.copy() if any(isinstance(t, PointerTensor) for t in self.state) else self

    def copy(self) -> FetchedPlan:
        """Another plan of the same recordings, with copies of the state's values."""
        stored = self.stored()
        twin = FetchedPlan.of(stored._replace(state=tuple(t.clone() for t in stored.state)))
        twin.id = self.id
        return twin


def _fetch(worker: BaseWorker, plan_id: str, copy: bool) -> FetchedPlan:
    found = offers.find(worker, plan_id)
    stored = files.loads(found.raw, f"plan {plan_id!r} at {worker.id}", found.state)
    plan = FetchedPlan.of(stored)
    plan.id = plan_id
    return plan.copy() if copy else plan


offers.fetched_by(_fetch)
