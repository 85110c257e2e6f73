"""The messages of policies: PROTECT puts an upload under one, POLICY a dataset, EXPLAIN tells what holds something back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from syftlite.engine.gate import only_owner
from syftlite.engine.marks import Mark
from syftlite.engine.policies import takes
from syftlite.engine.session import Session
from syftlite.errors import NotOwnerError, ObjectNotFoundError, QuotaExceededError
from syftlite.policy.columns import by_column, columns_in
from syftlite.policy.rules import Policy, from_json
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_TEXT
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine


MAX_PROTECTED = 1024
"""Uploads that a session may put under policies of its own."""


class Governing:
    """The handlers at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.handlers: dict[int, Callable[..., Message]] = {
            m.PROTECT: self._protect,
            m.EXPLAIN: self._explain,
            m.POLICY: self._policy,
        }

    def _protect(self, session: Session, request: int, number: int, policy: str) -> Message:
        tensor, cell = session.look_up(number)
        if cell.owner is not session or cell.mark is not None or tensor is None or cell.refs > 1:
            raise NotOwnerError("only an upload of your own, public and not yet used, is put under a policy")
        if len(session.protected) >= MAX_PROTECTED:
            raise QuotaExceededError(f"a session puts at most {MAX_PROTECTED:,} uploads under policies: send rows together")
        name = f"{session.principal.name}'s {number}"
        if name in session.protected:  # what was made of the first one is still under its policy
            raise NotOwnerError(f"object {number} was put under a policy before: send what comes now under an id of its own")
        found = from_json(name, policy)
        kept, meanwhile = takes(tensor, found)
        session.reserve(kept + meanwhile)
        cell.mark = Mark(self.engine.policies.admit(name, tensor, found), None)
        session.charge(kept)
        session.protected.append(name)
        self.engine.journal.append("protected", {"dataset": name, "by": session.principal.name, "policy": policy})
        return (m.DONE, request)

    def _explain(self, session: Session, request: int, numbers: Sequence[int]) -> Message:
        sources = frozenset[str]().union(*(session.look_up(number)[1].label.sources for number in numbers))
        return (m.EXPLAINED, request, self.engine.policies.explain(session.principal, sources)[: MAX_TEXT])

    def _policy(self, session: Session, request: int, dataset: str, policy: str) -> Message:
        only_owner(session.principal)
        if dataset not in self.engine.names:
            raise ObjectNotFoundError(f"there is no dataset {dataset!r}")
        policies = self.engine.policies
        found = self._fitting(dataset, from_json(dataset, policy)) if policy else None
        if found is None:
            policies.must_count(dataset)
        self.engine.journal.append("policy", {"dataset": dataset, "by": session.principal.name, "policy": policy})  # what is refused is not
        if found is None:
            policies.forgive(dataset)
        else:
            self._put_under(dataset, found)
        return (m.DONE, request)

    def _fitting(self, dataset: str, policy: Policy) -> Policy:
        """``policy`` as ``dataset`` may have it: its unit is the number of a column that is there."""
        number, policies = self.engine.names[dataset], self.engine.policies
        tensor, _ = self.engine.vault.objects[number]
        assert tensor is not None
        columns = columns_in(self.engine.vault.cards[number].description, tensor.shape[-1] if tensor.dim() > 1 else 0)
        policy = policies.with_unit(dataset, by_column(dataset, policy, columns))
        policies.must_have_unit(dataset, tensor, policy)
        return policy

    def _put_under(self, dataset: str, policy: Policy) -> None:
        """Put ``dataset`` under ``policy``: what was made of it, too, as far as it was watched enough."""
        policies = self.engine.policies
        tensor, cell = self.engine.vault.objects[self.engine.names[dataset]]
        assert tensor is not None
        if policies.outgrown(dataset, policy, None if cell.mark is None else cell.label):
            cell.mark = Mark(policies.admit(dataset, tensor, policy), None)
        else:
            policies.set(dataset, policy)
