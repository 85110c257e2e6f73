"""The exception tree. A class per remedy; every message names the remedy.

    SyftliteError                       (a RuntimeError: torch's operators swallow TypeErrors)
    |-- LookupFailed
    |   |-- WorkerNotFoundError         no worker of that id is known here
    |   |-- ObjectNotFoundError         consumed, deleted, never there, or not yours: all answer alike
    |   |-- RequestNotFoundError        no release request of that id
    |   `-- IdNotUniqueError            the id is taken
    |-- Refused
    |   |-- GetNotPermittedError        the gate keeps a PRIVATE value
    |   |   `-- ApprovalRequiredError   ... and a request has been filed: `.request`
    |   |-- PolicyError                 a dataset's policy does not allow the operation: its text says what it allows
    |   |-- SendNotPermittedError       the owner does not let a value go, or come, there
    |   |-- NotOwnerError               the role or token does not cover it, or the object is borrowed
    |   |-- QuotaExceededError          it would not fit what the owner grants
    |   |-- BudgetExceededError         a private answer would cost more epsilon than its accounts have left
    |   |-- ModelStoppedError           a served model takes no queries now
    |   |-- OperatorNotReviewedError    not in the reviewed table (of that node)
    |   `-- AuthenticationError         unknown, revoked, expired or missing token or key
    |-- Misuse
    |   |-- LocalTensorMixedError       a local tensor met a pointer: send() it first
    |   |-- TensorsNotCollocatedError   operands live at two workers: move one
    |   |-- PointerMisuseError          numpy(), pickle, .data = ... on a pointer: get() it first
    |   |-- PlanError                   a function cannot be recorded, or a plan not run, as asked
    |   |-- InvalidTensorForRemoteGet   get() on something that is not remote
    |   |-- UnsupportedLayerError       a model's layer, or an argument of one, that cannot be served
    |   `-- ConfigurationError          a setting that cannot be honoured, named
    |-- ProtocolError                   bytes that break the protocol; the connection closes
    |   |-- FrameTooLargeError          a head or frame over its limit
    |   `-- ProtocolVersionError        the two ends share no version
    |-- ConnectionLostError             the node is gone; its session's pointers are too
    |   `-- ForkedConnectionError       this process is a fork of the one that connected
    |-- SharingAbortedError             a computation among workers stopped for all of them; its group joins anew
    |   `-- EmptyCryptoPrimitiveStoreError   the provider has not dealt what a run needs
    |-- AggregationError                a round of secure aggregation cannot go on; nothing was learned: start another
    |-- RemoteError                     the node failed in a way that has no class here
    `-- DependencyError                 an extra is not installed; the message says which

An error crosses the wire as a code (`code_of`) and a text, and is rebuilt as its own class (`rebuild`).
"""

from __future__ import annotations

import torch


class SyftliteError(RuntimeError):
    """Base of everything that syftlite raises on purpose."""


class LookupFailed(SyftliteError):
    """A name or an id leads nowhere."""


class WorkerNotFoundError(LookupFailed):
    """No worker of that id is known to the local worker."""


class ObjectNotFoundError(LookupFailed):
    """The object was consumed, deleted, never existed, or is not yours: these answer alike."""


class RequestNotFoundError(LookupFailed):
    """No release request has that id."""


class IdNotUniqueError(LookupFailed):
    """The id is already taken."""


class Refused(SyftliteError):
    """The owner's node says no."""


class GetNotPermittedError(Refused):
    """The value is PRIVATE at its owner and may not leave."""


class ApprovalRequiredError(GetNotPermittedError):
    """As its parent; a release request has been filed. ``request`` is its handle."""

    request: object = None


class PolicyError(Refused):
    """A dataset's policy does not allow this; the message says which rule, and what is allowed."""


class SendNotPermittedError(Refused):
    """The owner does not let a value go there."""


class NotOwnerError(Refused):
    """The role or the token does not cover this, or the object is borrowed."""


class QuotaExceededError(Refused):
    """The operation would exceed what the owner grants this principal."""


class ModelStoppedError(Refused):
    """The model takes no queries now: its owner serves it again."""


class BudgetExceededError(Refused):
    """A differentially private answer would cost more than its accounts have left; the text says what that is."""


class OperatorNotReviewedError(Refused):
    """The operator is not in the reviewed table, or not in that node's version of it."""


class AuthenticationError(Refused):
    """The token or key is missing, unknown, revoked or expired."""


class Misuse(SyftliteError):
    """The call cannot mean what it says."""


class LocalTensorMixedError(Misuse):
    """A local tensor with dimensions met a pointer in one operation."""


class TensorsNotCollocatedError(Misuse):
    """The operands of one operation live at different workers."""


class PointerMisuseError(Misuse):
    """The operation needs the value, and a pointer has none."""


class InvalidTensorForRemoteGet(Misuse):
    """``get`` was called on something that is not remote."""


class PlanError(Misuse):
    """A function cannot be recorded, or a plan cannot run, as asked."""


class UnsupportedLayerError(Misuse):
    """A layer, or an argument of one, has no form in a served model. ``layer`` is its name."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"layer {layer!r}: {why}")
        self.layer = layer


class ConfigurationError(Misuse):
    """A setting cannot be honoured as given."""


class ProtocolError(SyftliteError):
    """The peer's bytes break the protocol."""


class FrameTooLargeError(ProtocolError):
    """A head or a frame exceeds its limit."""


class ProtocolVersionError(ProtocolError):
    """The two ends share no protocol version."""


class ConnectionLostError(SyftliteError):
    """The connection to the node is gone, and this session's objects with it."""


class SharingAbortedError(SyftliteError):
    """A secret-shared computation stopped, for all its members; what was dealt for it is never used. The next one joins the group anew."""


class EmptyCryptoPrimitiveStoreError(SharingAbortedError):
    """The provider has not dealt what the computation needs."""


class AggregationError(SyftliteError):
    """A round of secure aggregation cannot go on, or somebody in it does not keep to the protocol. Nothing was learned."""


class ForkedConnectionError(ConnectionLostError):
    """A connection does not survive ``fork``: connect again in the child."""


class RemoteError(SyftliteError):
    """The node failed in a way that has no class on this side."""


class DependencyError(SyftliteError):
    """An optional dependency is missing; the message says what to install."""


# Codes are part of the protocol: append only.
_CODES: tuple[tuple[int, type[Exception]], ...] = (
    (1, RemoteError),
    (2, WorkerNotFoundError),
    (3, ObjectNotFoundError),
    (4, RequestNotFoundError),
    (5, IdNotUniqueError),
    (6, GetNotPermittedError),
    (7, ApprovalRequiredError),
    (8, NotOwnerError),
    (9, QuotaExceededError),
    (10, OperatorNotReviewedError),
    (11, AuthenticationError),
    (12, LocalTensorMixedError),
    (13, TensorsNotCollocatedError),
    (14, PointerMisuseError),
    (15, InvalidTensorForRemoteGet),
    (16, ConfigurationError),
    (17, ProtocolError),
    (18, FrameTooLargeError),
    (19, ProtocolVersionError),
    (20, ConnectionLostError),
    (21, PlanError),
    (22, SendNotPermittedError),
    (23, SharingAbortedError),
    (24, EmptyCryptoPrimitiveStoreError),
    (25, ModelStoppedError),
    (32, AggregationError),
    (30, BudgetExceededError),
    (33, PolicyError),
    (34, Misuse),
    (64, RuntimeError),
    (65, ValueError),
    (66, IndexError),
    (67, TypeError),
    (68, NotImplementedError),
    (69, ZeroDivisionError),
    (70, OverflowError),
    (71, MemoryError),
    (72, torch.linalg.LinAlgError),  # type: ignore[attr-defined]
)
_BY_CODE = dict(_CODES)
_BY_CLASS = {cls: code for code, cls in _CODES}


def code_of(error: BaseException) -> int:
    """The wire code of ``error``: that of its nearest class in the table, 1 (RemoteError) if none."""
    for cls in type(error).__mro__:
        if cls in _BY_CLASS:
            return _BY_CLASS[cls]
    return 1


def rebuild(code: int, text: str) -> Exception:
    """The exception that a peer described by ``code`` and ``text``."""
    return _BY_CODE.get(code, RemoteError)(text)


# PySyft 0.2 spellings.
WorkerNotFoundException = WorkerNotFoundError
TensorsNotCollocatedException = TensorsNotCollocatedError
ObjectNotFoundException = ObjectNotFoundError
IdNotUniqueException = IdNotUniqueError
GetNotPermittedException = GetNotPermittedError
SendNotPermittedException = SendNotPermittedError
PlanCommandUnknownException = PlanError
PlanCommandUnknownError = PlanError
ResponseSignatureError = ProtocolError
PureFrameworkTensorFoundError = LocalTensorMixedError
