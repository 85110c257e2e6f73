"""AdditiveSharingTensor: a tensor of ring elements (Z_2^64, as int64) whose value nobody has, held as shares that add up to it.

    x.share(alice, bob, crypto_provider=carol)      child: a multi-pointer, one share at each holder
    x.share(alice, bob, carol, protocol="aby3")     a ReplicatedSharingTensor: two of three shares at each, and nobody else takes part
    x + y, x.sum(), x[0], x * 3, x @ public         each holder on its own share, no message between them
    x * y, x > y, x.max()                           the holders compute together, by a kernel (mpc/kernels.py), on Beaver's correlations
    x.get()                                         every holder's share, re-randomised, summed here

custody.py tells where it may be put together, and by whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar

import torch

from syftlite._torch import below_functions
from syftlite.errors import ApprovalRequiredError, GetNotPermittedError, Misuse, PointerMisuseError, TensorsNotCollocatedError
from syftlite.randomness import random_like
from syftlite.remote.arithmetic import ReplicatedArithmetic, SharedArithmetic
from syftlite.remote.asking import ReleaseRequest
from syftlite.remote.custody import KNOWN, OWN, Custody, Held, for_users, is_view, is_write, joined, label, without_marks, writes_truths
from syftlite.remote.group import Group, Shares
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import upload
from syftlite.tensors.wrapper import WrapperTensor

R = TypeVar("R", bound="AdditiveSharingTensor")


class AdditiveSharingTensor(WrapperTensor):
    """Shares of an int64 tensor at the holders of ``group``. Make one with ``tensor.share(alice, bob, crypto_provider=carol)``."""

    level: ClassVar[int] = 10
    remedy: ClassVar[str] = "get() the value to compute in the open"
    _group: Group
    held: Held
    """Its custody, and whom it was tagged for; its views have the same."""

    @classmethod
    def of(cls, shares: Shares, group: Group, custody: Custody = OWN) -> AdditiveSharingTensor:
        """The tensor whose shares these are, in the order of the group's places."""
        layer = AdditiveSharingTensor if group.width == 1 else ReplicatedSharingTensor
        return layer.around(group.multi(shares), _group=group, held=Held(custody))

    @classmethod
    def known(cls, value: torch.Tensor, group: Group) -> AdditiveSharingTensor:
        """The sharing of what everybody may know: all of it is the first component, and zeros the others."""
        must_be_here(value)
        whole = ring(value).contiguous()
        return cls.of(_placed([whole, *[torch.zeros_like(whole)] * (len(group.holders) - 1)], group), group, KNOWN)

    @classmethod
    def around(cls: type[R], child: torch.Tensor, **attributes: Any) -> R:
        """The layer around a multi-pointer to shares; the custody of what it was made of is `__torch_dispatch__`'s to note."""
        return super().around(child, **{"held": Held(OWN), **attributes})

    def attributes(self) -> dict[str, Any]:
        """The group, and its custody."""
        return {"_group": self._group, "held": Held(self.custody)}

    @property
    def custody(self) -> Custody:
        """Where it may be put together, and by whom."""
        return self.held.custody

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if is_view(func):
            return _held_by(super().__torch_dispatch__(func, types, args, kwargs), args[0].held)
        together = joined(b for a in args for b in (a if isinstance(a, (list, tuple)) else (a,)))
        if not is_write(func) or not isinstance(args[0], AdditiveSharingTensor):
            return _held_by(super().__torch_dispatch__(func, types, args, kwargs), together)
        stays = args[0].held.truths and writes_truths(func, args)
        args[0].held.narrow(together)
        out = _held_by(super().__torch_dispatch__(func, types, args, kwargs), together)
        if stays:
            args[0].held.note_truths()
        return out

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """What is in `functions`; of a layer above, which finds shares among its operands, that layer's answer."""
        if any(getattr(t, "level", -1) > cls.level for t in types):
            return NotImplemented
        handler = cls.functions.get(func)
        if handler is not None:
            return handler(*args, **(kwargs or {}))
        with below_functions():
            return func(*args, **(kwargs or {}))

    # -- what it is

    @property
    def group(self) -> Group:
        """Its holders and their provider."""
        return self._group

    @property
    def locations(self) -> list[Any]:
        """The holders."""
        return list(self._group.holders)

    @property
    def location(self) -> Any:
        """Where `share` was called on a pointer, until the first `get`; otherwise the holders."""
        return self.custody.located or self.locations

    @property
    def reveal_to(self) -> set[str]:
        """The users who may find it by its tags and open it, besides the one that shared it."""
        return set(self.custody.reveal_to or ())

    @property
    def crypto_provider(self) -> Any:
        """The worker that deals correlated randomness; None if the holders need none."""
        return self._group.provider

    @property
    def shares(self) -> Shares:
        """A pointer to each share, in the order of the group's places."""
        found: Shares = tuple(self._child._children.values())  # type: ignore[attr-defined]
        return found

    @property
    def arithmetic(self) -> SharedArithmetic:
        """How rings of shares are multiplied and compared."""
        return SharedArithmetic(self._group, type(self))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        located, readers = self.custody.located, sorted(self.reveal_to)
        at = (f", located at {located.id}" if located is not None else "") + (f", for {', '.join(readers)} too" if readers else "")
        members = str(self._group).removeprefix("<Group of ").removesuffix(">")
        head = f"{type(self).__name__} | {members}, shape={list(self.shape)}{at}"
        return "\n".join([head, *(f"    -> {share!r}" for share in self.shares)])

    # -- reading it

    def get(self, *, user: str | None = None, reason: str = "") -> torch.Tensor:
        """The value, int64: every holder's share, re-randomised, summed here. Of one that is located at a worker, the first `get` brings
        the shared tensor here and reveals nothing. ``reason``: ask the owners of what it was made of, if that is PRIVATE: raises
        `ApprovalRequiredError` with the `SharedRequest`."""
        if self.custody.located is not None:
            return AdditiveSharingTensor.of(self.shares, self._group, self.custody._replace(located=None))
        try:
            return self._group.reveal(self.shares)
        except GetNotPermittedError as refusal:
            if not reason:
                raise
            error = ApprovalRequiredError(f"{refusal}. It is asked for: when its owners have approved, request.get()")
            error.request = self.request(reason)
            raise error from None

    def request(self, reason: str) -> SharedRequest:
        """Ask the owners of the PRIVATE data that it was made of, each at its node, to let the value go."""
        self.must_be_here()
        return SharedRequest(self._group.masked(self.shares), reason)

    def explain_release(self) -> str:
        """Which rules of which owners hold for the value, and what would let it go."""
        self.must_be_here()
        told = dict.fromkeys(line for share in self.shares for line in share.explain_release().splitlines())
        kept = [line for line in told if not line.startswith("it is public")]
        return "\n".join(kept or told)

    reconstruct = get_copy = get

    def decrypt(self, **options: Any) -> torch.Tensor:
        """The value, int64. Raises `Misuse` for one that is located at a worker: `get` brings it here first."""
        self.must_be_here()
        return self.get(**options)

    def must_be_here(self) -> None:
        """Raise `Misuse` for a tensor that is located at a worker."""
        located = self.custody.located
        if located is not None:
            raise Misuse(f"this tensor is located at {located.id}: get() brings it here, revealing nothing; then decrypt()")

    def refresh(self) -> AdditiveSharingTensor:
        """A fresh sharing of the same value."""
        (shares,) = self._group.compute("refresh", [self.shares])
        return AdditiveSharingTensor.of(shares, self._group, self.custody)

    # -- for others to find

    def tag(self, *tags: str, scheme: Mapping[str, int] | None = None) -> AdditiveSharingTensor:
        """Label it at its holders, where this user and those that ``reveal_to`` names find it (`find_shared`) for as long as it is there.
        ``scheme``: base and precision. Raises `SendNotPermittedError` if others would find what was made of PRIVATE data."""
        self.must_be_here()
        label(self.shares, self.held, tags, scheme)
        return self

    @property
    def tags(self) -> set[str]:
        """The tags that it was labelled with."""
        return without_marks(self._child.tags)  # type: ignore[attr-defined]

    def copy(self) -> torch.Tensor:
        """Another tensor of the same value."""
        return self.clone()

    def share(self, *holders: Any, **options: Any) -> NoReturn:
        """Raises: it is shared already."""
        raise Misuse("this tensor is shared already: get() it first, and share() it among others then")

    def send(self, *workers: Any, **options: Any) -> NoReturn:
        """Raises: its shares are at their holders."""
        raise PointerMisuseError("a shared tensor is at its holders: send() nothing, or get() it first")

    move = send

    def tolist(self) -> NoReturn:
        """Raises: get() the value first."""
        raise PointerMisuseError("the value is nowhere in one place: get() reconstructs it, if its holders let it")

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Raises: get() the value first."""
        self.tolist()


class ReplicatedSharingTensor(AdditiveSharingTensor):
    """The same among three holders, each of whom has two of three shares, its own and the next holder's; they need no provider, and no two
    of them may collude. Make one with ``tensor.share(alice, bob, carol, protocol="aby3")``."""

    level: ClassVar[int] = 11  # it meets an AdditiveSharingTensor first, and says that they have different holders

    @property
    def arithmetic(self) -> ReplicatedArithmetic:
        """How rings of replicated shares are multiplied and compared."""
        return ReplicatedArithmetic(self._group, type(self))


ReplicatedSharingTensor.functions = AdditiveSharingTensor.functions
ReplicatedSharingTensor.ops = AdditiveSharingTensor.ops  # what holders do with shares does not depend on how many they have


class SharedRequest:
    """A request to let the value of shares go: to each owner whose data it was made of, for its node's share. The others' are here."""

    def __init__(self, masked: Sequence[PointerTensor], reason: str) -> None:
        self._got: list[torch.Tensor] = []
        self.requests: list[ReleaseRequest] = []
        """One for each owner."""
        for pointer in masked:
            try:
                self._got.append(pointer.get())
            except GetNotPermittedError:
                self.requests.append(pointer.request(reason))

    def get(self) -> torch.Tensor:
        """The value, int64, when all have approved; once. Raises `GetNotPermittedError`."""
        while self.requests:
            self._got.append(self.requests[0].get())
            del self.requests[0]
        return torch.stack(self._got).sum(0)

    def __repr__(self) -> str:
        return f"<SharedRequest: {', '.join(map(repr, self.requests)) or 'all have approved'}>"


def _held_by(out: Any, custody: Custody | Held) -> Any:
    """``out``, what an operator made of tensors with that custody, or views of one."""
    for made in out if isinstance(out, (list, tuple)) else (out,):
        if isinstance(made, AdditiveSharingTensor):
            if isinstance(custody, Held):
                made.held = custody
            else:
                made.held.custody = custody
    return out


def share(
    tensor: torch.Tensor, holders: Sequence[Any], provider: Any = None, replicated: bool = False, reveal_to: Any = ()
) -> AdditiveSharingTensor:
    """Shares of ``tensor`` (int64), of a local one from here, of a pointer's from where it is, directly to the holders."""
    kept = for_users(reveal_to)
    if tensor.dtype != torch.int64:
        raise Misuse(f"only ring elements (int64) are shared, and this is {tensor.dtype}: fix_precision() first, or .long() what is whole")
    group = Group.of(holders, provider, replicated)
    if isinstance(tensor, PointerTensor):
        return _share_there(tensor, group, kept)
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise Misuse(f"a {type(tensor).__name__} cannot be shared: get() it first")
    return AdditiveSharingTensor.of(_dealt_out(tensor.detach(), group), group, kept)


def _dealt_out(value: torch.Tensor, group: Group) -> Shares:
    last = value.clone(memory_format=torch.contiguous_format)
    components = []
    for _ in group.holders[1:]:
        components.append(random_like(tuple(value.shape)))
        last -= components[-1]
    return _placed([*components, last], group)


def _placed(components: Sequence[torch.Tensor], group: Group) -> Shares:
    """Each component at the holders that have it."""
    return tuple(PointerTensor(upload(components[component], group.holders[holder])._handle) for holder, component in group.places)


def _share_there(pointer: PointerTensor, group: Group, kept: Custody) -> AdditiveSharingTensor:
    source = pointer.location
    kept = kept._replace(located=source)
    if source.transport.uri is None or group.in_process:
        return AdditiveSharingTensor.of(_dealt_out(pointer.get_copy(), group), group, kept)
    return AdditiveSharingTensor.of(group.split(pointer), group, kept)


def ring(value: torch.Tensor) -> torch.Tensor:
    """A public tensor as ring elements."""
    if value.is_floating_point() or value.is_complex():
        raise Misuse(f"shares are whole ring elements, and a {value.dtype} tensor met them: fix_precision() before share()")
    return value.detach().long()


def must_be_here(value: Any) -> None:
    """Raise `TensorsNotCollocatedError` for a pointer: what meets shares is public, and here."""
    if isinstance(value, PointerTensor):
        raise TensorsNotCollocatedError(f"a shared tensor met a pointer to {value.location.id}: share() it among the same holders")
