"""PrivateTensor: an owner's tensor that says what may be done with it. What is made of it says the same.

    owner:      PrivateTensor(policy) > torch.Tensor        here: every result has the policies of all its operands, none can be read
    x.send(bob) the same value at bob, a dataset of its own under the same policy
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NoReturn

import torch

from syftlite._torch import make_wrapper
from syftlite.errors import GetNotPermittedError
from syftlite.ops.spec import Spec
from syftlite.policy.rules import Policy


class PrivateTensor(torch.Tensor):
    """``child`` under ``policy``. Make one with ``x.private(policy)``."""

    child: torch.Tensor
    policy: Policy

    @staticmethod
    def __new__(cls, child: torch.Tensor, policy: Policy) -> PrivateTensor:
        child = child.detach()
        spec = Spec.of(child)
        made = make_wrapper(cls, spec.shape, spec.stride, spec.offset, None, spec.dtype)
        made.child, made.policy = child, policy
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not all(issubclass(kind, (PrivateTensor, torch.nn.Parameter)) or kind is torch.Tensor for kind in types):
            return NotImplemented
        given: list[Policy] = []

        def inner(value: Any) -> Any:
            if isinstance(value, PrivateTensor):
                given.append(value.policy)
                return value.child
            return type(value)(map(inner, value)) if type(value) in (list, tuple) else value

        plain = [inner(a) for a in args]
        options = {k: inner(v) for k, v in (kwargs or {}).items()}
        policy = reduce(_both, given)
        if func._schema.returns and any(str(r.type) in ("number", "bool", "int", "float") for r in func._schema.returns):
            raise _kept(policy)
        out = func(*plain, **options)
        for before, after in zip(args, plain, strict=True):
            if isinstance(before, PrivateTensor) and after is out:  # in place
                before.policy = policy
                return before
        if any(after is out for after in plain):
            raise GetNotPermittedError("a public tensor cannot hold what is private: make the target private() first")
        if type(out) in (list, tuple):
            return type(out)([_wrapped(value, policy) for value in out])
        return _wrapped(out, policy)

    def allow(self, user: str) -> bool:
        """Whether ``user`` may have the value: by name, whole (PySyft 0.2's ``allowed_users="bob"`` admitted "b")."""
        return all(part.free for part in self.policy.parts()) and self.policy.permits("release", user, "scientist")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PrivateTensor | shape={list(self.shape)}, dtype={self.dtype}; lets go {self.policy.ways()}"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Raises: its policy keeps it."""
        raise _kept(self.policy)

    def tolist(self) -> NoReturn:
        """Raises: its policy keeps it."""
        raise _kept(self.policy)

    def __array__(self, dtype: Any = None) -> NoReturn:
        raise _kept(self.policy)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise _kept(self.policy)


def _wrapped(value: Any, policy: Policy) -> Any:
    return PrivateTensor(value, policy) if isinstance(value, torch.Tensor) else value


def _both(one: Policy, other: Policy) -> Policy:
    return one if one == other else one & other


def _kept(policy: Policy) -> GetNotPermittedError:
    return GetNotPermittedError(f"it is private, and its policy lets go {policy.ways()}: send() it, and ask there")
