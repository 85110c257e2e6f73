"""fix_precision, share, encrypt, decrypt and the like, for plain tensors, pointers and modules.

    tensor.fix_precision().share(alice, bob, crypto_provider=carol)        module.share(...) the same for parameters and buffers, in place
    tensor.encrypt(workers=[alice, bob], crypto_provider=carol)            fix_precision() and share() in one; decrypt() undoes both
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from syftlite.errors import Misuse
from syftlite.mpc.counting import before_end
from syftlite.remote import (
    custody,
    modules,
    shared_division,  # noqa: F401  they fill the layer's table, as what they import does
    shared_logic,  # noqa: F401
    shared_order,  # noqa: F401
    sharing,
)
from syftlite.remote.group import Group
from syftlite.remote.transfer import become
from syftlite.tensors import (  # noqa: F401  they fill the layer's tables
    fixed_activations,
    fixed_compare,
    fixed_convolutions,
    fixed_dropout,
    fixed_functions,
    fixed_layers,
    fixed_linear,
    fixed_losses,
    fixed_moves,
    fixed_nn,
    fixed_norm,
    fixed_ops,
    fixed_order,
    fixed_pools,
    fixed_ranks,
    fixed_recurrent,
    fixed_rounding,
    fixed_select,
    fixed_signs,
    fixed_softmax,
    fixed_statistics,
    fixed_volumes,
)
from syftlite.tensors.fixed import FixedPrecisionTensor, fix_precision, settle

M = TypeVar("M", bound=nn.Module)
before_end.append(settle)
ADDITIVE = ("snn", "fss", "mpc")
"""Names that PySyft gave to additive sharing with a provider."""
REPLICATED = ("aby3", "falcon")
"""And to replicated sharing among three."""


def is_replicated(protocol: str) -> bool:
    """Whether ``protocol`` names replicated sharing. Raises `Misuse` for a name that nothing has."""
    if protocol not in ADDITIVE + REPLICATED:
        raise Misuse(
            f"there is no protocol {protocol!r} here: {', '.join(ADDITIVE)} all name additive sharing with a crypto provider, "
            f"{', '.join(REPLICATED)} replicated sharing among three holders without one"
        )
    return protocol in REPLICATED


def share(
    tensor: torch.Tensor,
    *workers: Any,
    protocol: str = "snn",
    crypto_provider: Any = None,
    requires_grad: bool = False,
    reveal_to: Sequence[str] | str = (),
) -> Any:
    """Shares of this int64 tensor at ``workers`` (two or more), which compute together with what ``crypto_provider`` deals; with
    ``protocol="aby3"`` at three, who need nobody else, and of whom no two may collude. A float tensor: fix_precision() first.

    Only the session that shared reconstructs what is made of them. ``reveal_to`` names users of the holders who may, too: they find by its
    tags what was made of tensors that all name them (`find_shared`)."""
    replicated = is_replicated(protocol)
    if tensor.is_floating_point():
        raise Misuse("floats are no ring elements: fix_precision().share(...), or encrypt(workers=[...]) for both")
    if requires_grad:
        raise Misuse("ring elements have no gradient: fix_precision() first, and share(requires_grad=True) then")
    return sharing.share(tensor, workers, crypto_provider, replicated, reveal_to)


def find_shared(*tags: str, workers: Sequence[Any], protocol: str = "snn", crypto_provider: Any = None) -> list[torch.Tensor]:
    """Tensors shared among ``workers``, in this order, that carry all ``tags``: this user's, of whatever session, and those that others
    have shared with ``reveal_to`` this one. To be computed with, by what ``crypto_provider`` deals, and opened; not to be written to."""
    group = Group.of(workers, crypto_provider, is_replicated(protocol))
    found: list[torch.Tensor] = []
    for shares, scheme in custody.found(group, tags):
        ring = sharing.AdditiveSharingTensor.of(shares, group)
        found.append(ring if scheme is None else FixedPrecisionTensor.of(ring, scheme))
    return found


def encrypt(tensor: torch.Tensor, protocol: str = "mpc", workers: Sequence[Any] = (), crypto_provider: Any = None, **options: Any) -> Any:
    """`fix_precision` and `share` in one."""
    given = {k: options.pop(k) for k in ("base", "precision_fractional") if k in options}
    return fix_precision(tensor, **given).share(*workers, protocol=protocol, crypto_provider=crypto_provider, **options)


def _not_encrypted(tensor: torch.Tensor, *_: Any, **__: Any) -> Any:
    """Raises: it is neither fixed nor shared."""
    raise Misuse("this tensor is neither in fixed precision nor shared: fix_precision() and share() do that")


# -- in place


def fix_precision_(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
    """`fix_precision`, in place."""
    return become(tensor, fix_precision(tensor, **options))


def share_(tensor: torch.Tensor, *workers: Any, **options: Any) -> torch.Tensor:
    """`share`, in place."""
    return become(tensor, tensor.share(*workers, **options))  # type: ignore[attr-defined]


def float_precision_(tensor: torch.Tensor) -> torch.Tensor:
    """`float_precision`, in place."""
    return become(tensor, tensor.float_precision())  # type: ignore[attr-defined]


# -- modules


def fix_module(module: M, **options: Any) -> M:
    """Its floating point parameters and buffers in fixed precision, in place."""
    deviations = fixed_norm.deviation(module)

    def fixed(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or isinstance(tensor, FixedPrecisionTensor):
            return tensor.detach()
        found = fix_precision(tensor, **options)
        if id(tensor) in deviations:
            inverse, eps = deviations[id(tensor)]
            fixed_norm.keep(found, fix_precision(inverse, **options), eps)
        return found

    return modules.replace(module, fixed)


def share_module(
    module: M,
    *workers: Any,
    protocol: str = "snn",
    crypto_provider: Any = None,
    requires_grad: bool = False,
    reveal_to: Sequence[str] | str = (),
) -> M:
    """Its parameters and buffers shared, in place; `fix_precision` first. They require gradients only with ``requires_grad``."""
    is_replicated(protocol)
    options = {"crypto_provider": crypto_provider, "protocol": protocol, "reveal_to": reveal_to}

    def shared(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FixedPrecisionTensor):
            found: FixedPrecisionTensor = tensor.detach().share(*workers, **options)  # type: ignore[attr-defined]
            known = fixed_norm.kept(tensor)
            if known is not None:
                fixed_norm.keep(found, known.inverse.share(*workers, **options), known.eps)
            return found
        if tensor.is_floating_point():
            raise Misuse("this module's parameters are floats: fix_precision() it first, or encrypt() for both")
        return tensor.detach()  # a counter, such as a batch norm's: public

    for parameter in module.parameters():
        parameter.requires_grad_(requires_grad)
    return modules.replace(module, shared)


def encrypt_module(module: M, protocol: str = "mpc", workers: Sequence[Any] = (), crypto_provider: Any = None, **options: Any) -> M:
    """`fix_precision` and `share` in one, in place."""
    given = {k: options.pop(k) for k in ("base", "precision_fractional") if k in options}
    return share_module(fix_module(module, **given), *workers, protocol=protocol, crypto_provider=crypto_provider, **options)


def float_module(module: M) -> M:
    """Its parameters and buffers as floats, in place: of a shared module, get() first."""
    return modules.replace(module, lambda t: t.detach().float_precision() if isinstance(t, FixedPrecisionTensor) else t.detach())  # type: ignore[attr-defined]


def decrypt_module(module: M, **options: Any) -> M:
    """Reconstructed here and as floats, in place."""
    return modules.replace(module, lambda t: t.detach().decrypt(**options) if isinstance(t, FixedPrecisionTensor) else t.detach())  # type: ignore[attr-defined]


def get_module(module: M, *args: Any, **options: Any) -> M:
    """A shared module reconstructed here, in place, still in fixed precision; one at a worker brought back."""
    if any(isinstance(t, FixedPrecisionTensor) for t in modules.tensors(module)):
        return modules.replace(module, lambda t: t.detach().get() if isinstance(t, FixedPrecisionTensor) else t.detach())  # type: ignore[attr-defined]
    return modules.get(module, *args, **options)


TENSOR: dict[str, Any] = {
    "fix_precision": fix_precision,
    "fix_prec": fix_precision,
    "fix_precision_": fix_precision_,
    "fix_prec_": fix_precision_,
    "float_precision": _not_encrypted,
    "float_prec": _not_encrypted,
    "decode": _not_encrypted,
    "float_precision_": float_precision_,
    "float_prec_": float_precision_,
    "share": share,
    "share_": share_,
    "encrypt": encrypt,
    "decrypt": _not_encrypted,
    "reconstruct": _not_encrypted,
    "refresh": _not_encrypted,
}
MODULE: dict[str, Any] = {
    "fix_precision": fix_module,
    "fix_prec": fix_module,
    "float_precision": float_module,
    "float_prec": float_module,
    "share": share_module,
    "encrypt": encrypt_module,
    "decrypt": decrypt_module,
    "get": get_module,
}
