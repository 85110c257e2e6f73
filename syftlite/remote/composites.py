"""Composite operators whose own parts no pointer can follow: put together here from other parts, where an operand is remote.

    one_hot, quantile, pad_sequence, matrix_rank, trace's gradient, attention of what has not four dimensions
                                        make tensors of their own on the way: here these land at the operands' worker
    lstm                                one fused kernel for one kind of processor: as the products of matrices that it stands for
    linalg.inv, solve, cholesky, lu     read the status of the result: the worker reads it, and an error comes as late as any other
    weight norm, pinv, lstsq            kernels that trust their operands: by their formulas (attention's: `remote/attention.py`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from syftlite._recurrent import by_layers
from syftlite._torch import aten
from syftlite.errors import PointerMisuseError
from syftlite.remote import attention as attention  # these register their own
from syftlite.remote import conjugates as conjugates
from syftlite.remote import formulas as formulas
from syftlite.remote import layers as layers
from syftlite.remote import sequences as sequences
from syftlite.remote import special as special
from syftlite.remote import spectra as spectra
from syftlite.remote.dispatch import handles
from syftlite.remote.factories import Factories
from syftlite.remote.handle import RemoteTensor
from syftlite.remote.rules import first_remote, rule_of

# -- tensors of their own


@rule_of(aten.one_hot.default)
def _one_hot(func: Any, classes: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    """A class out of range is an error at the worker. Without ``num_classes`` the largest one is read, which waits."""
    if classes.dtype is not torch.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes < 1:
        num_classes = int(classes.max().item()) + 1
    return classes.new_zeros((*classes.shape, num_classes)).scatter_(-1, classes.unsqueeze(-1), 1)


@rule_of(
    aten.quantile.default, aten.quantile.scalar, aten.nanquantile.default, aten.nanquantile.scalar, aten.linalg_matrix_rank.default,
    aten.linalg_matrix_rank.atol_rtol_float, aten.linalg_matrix_rank.atol_rtol_tensor, aten.linalg_matrix_rank.tol_tensor,
    aten.combinations.default, aten.istft.default, aten.pad_sequence.default,
)  # fmt: skip
def _makes_tensors(func: Any, *args: Any, **kwargs: Any) -> Any:
    remote = first_remote((*args, *kwargs.values()))
    assert remote is not None
    with Factories(remote._handle.worker):
        return func.decompose(*args, **kwargs)


@rule_of(aten._scaled_dot_product_attention_math.default)
def _attention(
    func: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, dropout: float = 0.0,
    causal: bool = False, *rest: Any, **options: Any,
) -> Any:  # fmt: skip
    if causal and mask is None:
        mask, causal = q.new_full((q.shape[-2], k.shape[-2]), float("-inf")).triu(1), False
    return func.decompose(q, k, v, mask, dropout, causal, *rest, **options)


@rule_of(aten.trace_backward.default)
def _trace_backward(func: Any, grad: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    rows, columns = sizes
    least = min(rows, columns)
    return F.pad(grad.expand(least).diag_embed(), (0, columns - least, 0, rows - least))


@rule_of(aten.tensor_split.tensor_indices_or_sections)
def _split_at(func: Any, x: torch.Tensor, places: torch.Tensor, dim: int = 0) -> Any:
    """The places are shapes: they are read, which waits."""
    return func.decompose(x, places.get_copy() if isinstance(places, RemoteTensor) else places, dim)  # type: ignore[attr-defined]


# -- recurrent layers


def _begun(x: torch.Tensor, state: Any) -> Any:
    """The state before the first step, or states: the zeros that a layer makes here where none is given, made where ``x`` is."""
    if isinstance(state, (list, tuple)):
        return [_begun(x, part) for part in state]
    here = not isinstance(state, RemoteTensor) and isinstance(x, RemoteTensor)
    return x.new_zeros(state.shape) if here and not state.any() else state


@rule_of(aten.lstm_cell.default, aten.gru_cell.default, aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default)
def _cell(func: Any, x: torch.Tensor, state: Any, *rest: Any, **options: Any) -> Any:
    return func.decompose(x, _begun(x, state), *rest, **options)


@rule_of(aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
def _recurrent(func: Any, x: torch.Tensor, state: Any, *rest: Any, **options: Any) -> Any:
    return by_layers(func.decompose, x, _begun(x, state), *rest, **options)


@rule_of(aten.lstm.data, aten.gru.data, aten.rnn_tanh.data, aten.rnn_relu.data)
def _packed(func: Any, x: torch.Tensor, sizes: torch.Tensor, state: Any, *rest: Any, **options: Any) -> Any:
    def run(x: torch.Tensor, *others: Any) -> Any:
        return func.decompose(x, sizes, *others[:-1])  # packed, its batch is nowhere first

    return by_layers(run, x, _begun(x, state), *rest, **options)


def _steps(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weights: Sequence[torch.Tensor], biased: bool, backward: bool) -> Any:
    """One direction of one layer: x (t, n, in), h (n, out), c (n, hidden) to ((t, n, out), h, c)."""
    w_in, w_hidden, *rest = weights
    b_in, b_hidden = rest[:2] if biased else (None, None)
    projection = rest[-1] if len(rest) % 2 else None
    inputs = F.linear(x, w_in, b_in).unbind(0)
    outputs = []
    for step in reversed(inputs) if backward else inputs:
        i, f, g, o = (step + F.linear(h, w_hidden, b_hidden)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if projection is not None:
            h = F.linear(h, projection)
        outputs.append(h)
    return torch.stack(outputs[::-1] if backward else outputs), h, c


@rule_of(aten.lstm.input)
def _lstm(
    func: Any, x: torch.Tensor, hx: Sequence[torch.Tensor], params: Sequence[torch.Tensor], has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    hx = _begun(x, hx)
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    states = list(zip(hx[0].unbind(0), hx[1].unbind(0), strict=True))
    lasts = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            out, *last = _steps(x, *states[number], params[number * each : (number + 1) * each], has_biases, direction == 1)
            outputs.append(out)
            lasts.append(last)
        x = torch.cat(outputs, 2) if bidirectional else outputs[0]
        if dropout and train and layer < num_layers - 1:
            x = F.dropout(x, dropout)
    h, c = (torch.stack(last) for last in zip(*lasts, strict=True))
    return x.transpose(0, 1) if batch_first else x, h, c


@handles(aten._pack_padded_sequence.default)
def _pack(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences (t, n, ...) of falling ``lengths``, which are the caller's own, to their steps one after another, and how many each has."""
    x, lengths, batch_first = args
    x = x.transpose(0, 1) if batch_first else x
    if isinstance(lengths, RemoteTensor) or int(lengths.min()) < 1 or not torch.equal(lengths, lengths.sort(descending=True).values):
        raise PointerMisuseError("lengths of sequences are numbers of this process, from 1, in falling order: sort the sequences by them")
    sizes = [int((lengths > step).sum()) for step in range(int(lengths[0]))]
    return torch.cat([x[step, :size] for step, size in enumerate(sizes)]), torch.tensor(sizes)


def _unpacked(data: torch.Tensor, sizes: Sequence[int], steps: int, padding: float) -> torch.Tensor:
    """The packed (sum of sizes, ...) as (steps, n, ...)."""
    shape = (len(sizes) and sizes[0], *data.shape[1:])
    rows = [torch.cat([part, part.new_full((shape[0] - len(part), *shape[1:]), padding)]) for part in data.split(list(sizes))]
    return torch.stack([*rows, *[data.new_full(shape, padding) for _ in range(steps - len(rows))]])


@rule_of(aten._pad_packed_sequence.default)
def _unpack(
    func: Any, data: torch.Tensor, batch_sizes: torch.Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    sizes = batch_sizes.tolist()
    x = _unpacked(data, sizes, max(total_length, len(sizes)), padding_value)
    return x.transpose(0, 1) if batch_first else x, torch.tensor([sum(size > n for size in sizes) for n in range(sizes[0])])


@rule_of(aten._pack_padded_sequence_backward.default)
def _pack_backward(func: Any, grad: torch.Tensor, size: Sequence[int], batch_sizes: torch.Tensor, batch_first: bool) -> torch.Tensor:
    x = _unpacked(grad, batch_sizes.tolist(), size[1 if batch_first else 0], 0.0)
    return x.transpose(0, 1) if batch_first else x


# -- a status that the worker reads


@rule_of(aten.linalg_inv.default, aten.inverse.default)
def _inv(func: Any, matrix: torch.Tensor) -> Any:
    return torch.linalg.inv_ex(matrix, check_errors=True).inverse


@rule_of(aten.linalg_cholesky.default)
def _cholesky(func: Any, matrix: torch.Tensor, *, upper: bool = False) -> Any:
    return torch.linalg.cholesky_ex(matrix, upper=upper, check_errors=True).L


@handles(aten.cholesky.default)
def _old_cholesky(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return torch.linalg.cholesky_ex(args[0], upper=[*args[1:], kwargs.get("upper", False)][0], check_errors=True).L


@rule_of(aten.linalg_solve.default)
def _solve(func: Any, matrix: torch.Tensor, right: torch.Tensor, *, left: bool = True) -> Any:
    return torch.linalg.solve_ex(matrix, right, left=left, check_errors=True).result


@rule_of(aten.linalg_lu_factor.default)
def _lu_factor(func: Any, matrix: torch.Tensor, *, pivot: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrix, pivot=pivot, check_errors=True)
    return factors, pivots


@handles(aten._linalg_check_errors.default)
def _check_errors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Where torch asks on the way through another operator: this one waits."""
    func(args[0].get_copy(), *args[1:], **kwargs)


@handles(aten.linalg_pinv.atol_rtol_tensor)
def _pinv(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """A = U S V' to V S^-1 U', singular values at or below the tolerance left out."""
    (matrix,), atol, rtol = args, kwargs.get("atol"), kwargs.get("rtol")
    if kwargs.get("hermitian"):
        values, left = torch.linalg.eigh(matrix)
        right, sizes = left, values.abs()
    else:
        left, values, adjoint = torch.linalg.svd(matrix, full_matrices=False)
        right, sizes = adjoint.mH, values
    if not sizes.numel():
        empty: torch.Tensor = matrix.new_zeros(matrix.mT.shape)
        return empty
    if rtol is None:
        rtol = 0.0 if atol is not None else torch.finfo(matrix.dtype).eps * max(matrix.shape[-2:])
    bound = sizes.amax(-1, keepdim=True) * _beside_values(rtol)
    if atol is not None:
        bound = bound.clamp_min(atol) if isinstance(atol, float) else torch.maximum(bound, _beside_values(atol).to(bound.dtype))
    inverse = torch.where(sizes > bound, values.reciprocal(), 0.0).to(matrix.dtype)
    pseudo: torch.Tensor = (right * inverse.unsqueeze(-2)) @ left.mH
    return pseudo


def _beside_values(tolerance: Any) -> Any:
    """A tolerance for each matrix of a batch, for each of their values."""
    return tolerance.unsqueeze(-1) if isinstance(tolerance, torch.Tensor) and tolerance.dim() else tolerance


@handles(aten.linalg_lstsq.default)
def _lstsq(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """The least solution of least squares, by the pseudo-inverse. Which of the others a driver gives is as in torch, but the residuals of
    "gelsd" and "gelss", which it gives if the ranks are full: they are empty."""
    matrix, right, rcond = (*args, None)[:3]
    rcond, driver = kwargs.get("rcond", rcond), kwargs.get("driver") or "gelsy"
    rtol = torch.finfo(matrix.dtype).eps * max(matrix.shape[-2:]) if rcond is None else rcond
    inverse = torch.linalg.pinv(matrix, rtol=rtol)
    vector = right.dim() == 1 or (right.dim() == matrix.dim() - 1 and right.shape == matrix.shape[:-1])
    right = right.unsqueeze(-1) if vector else right
    columns = inverse @ right
    solution = columns.squeeze(-1) if vector else columns
    residuals, values = (matrix.new_empty(0, dtype=matrix.dtype.to_real()) for _ in range(2))
    if driver == "gels":
        if matrix.shape[-2] > matrix.shape[-1]:
            residuals = (right - matrix @ columns).abs().square().sum(-2)
        return solution, residuals, matrix.new_empty(0, dtype=torch.int64), values
    if driver != "gelsy":
        values = torch.linalg.svdvals(matrix)
    return solution, residuals, torch.linalg.matrix_rank(matrix, rtol=rtol), values


# -- a scaled loss's gradients


@handles(aten._amp_foreach_non_finite_check_and_unscale_.default)
def _unscale(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Whether some gradient is not finite is asked: one round trip, refused where the gradients are PRIVATE."""
    grads, found, inverse = args
    finite = torch.stack([grad.isfinite().all() for grad in grads]).all()
    if not finite.item():
        found.fill_(1.0)
    torch._foreach_mul_(grads, inverse)


# -- weight norm


@handles(aten._weight_norm_interface.default)
def _weight_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    v, g, dim = (*args, 0)[:3]
    others = [d for d in range(v.dim()) if d != dim % v.dim()]
    norms = torch.linalg.vector_norm(v, 2, others, keepdim=True)
    return v * (g / norms), norms


@handles(aten._weight_norm_interface_backward.default)
def _weight_norm_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """w = g v / |v|: dg = dw.v / |v|, dv = g / |v| (dw - v dg / |v|)."""
    grad, v, g, norms, dim = args
    others = [d for d in range(v.dim()) if d != dim % v.dim()]
    grad_g = (grad * v).sum(others, keepdim=True) / norms
    return g / norms * (grad - v * grad_g / norms), grad_g
