"""Writes docs/operators.md from the reviewed table: `python docs/generate_operators.py`. A test checks that it is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from syftlite.engine.bounds import SHAPES, VALUES
from syftlite.ops.operator import Kind, Operator, Result
from syftlite.ops.table import TABLE

PAGE = Path(__file__).parent / "operators.md"

INTRODUCTION = """\
# Operators

What runs at a worker: {count} overloads of torch's operators, each reviewed, each with a number that never changes. A method of
`torch.Tensor` or a layer of `torch.nn` arrives as one or several of them, so that ordinary programs need not know this list; a test runs
layers, losses, optimizers and what people do with data on it. An operator that is not on it raises `OperatorNotReviewedError` at the line
that calls it, before anything is sent.

What a reviewer asked of each before it got a number:

- it touches no file, process, storage, generator or global setting, and takes no callable;
- it reads and writes only its operands' elements; where torch's kernel trusts its operands instead, the node checks them first
  (*checked* below: shapes once for each combination, indices and other values at each run);
- what it writes and what its result aliases is declared, so that labels and ownership follow;
- memory that it leaves uninitialised is filled with zeros;
- what it holds at its peak follows from its operands' shapes and dtypes, so that quotas are checked before anything is allocated.

Each of these is tested for every operator, as is that it computes remotely what it computes locally, to the last bit, and that the shape,
strides and dtype that a pointer shows are those of the value.

## The table

One line for all overloads of an operator: their names with their numbers. *in place*: writes its first operand. *view*: shares storage
with its operand. *waits*: the shape of its result depends on values, so the call waits for the worker, and is refused on PRIVATE data.
*random*: draws from the worker's generator.

The kind is what the cost rules go by (`syftlite/ops/cost.py`).
"""

KINDS: dict[Kind, str] = {
    Kind.POINTWISE: "Element by element",
    Kind.REDUCE: "Over dimensions",
    Kind.VIEW: "Views",
    Kind.COPY: "Copies",
    Kind.MATMUL: "Products of matrices",
    Kind.CONV: "Convolutions",
    Kind.POOL: "Pooling and resampling",
    Kind.NORM: "Normalisation",
    Kind.INDEX: "By index",
    Kind.SHAPE: "Shapes",
    Kind.SORT: "Order",
    Kind.FACTORY: "Factories",
    Kind.RANDOM: "Random numbers",
    Kind.LINALG: "Linear algebra",
    Kind.FFT: "Fourier transforms",
}

REFUSED: list[tuple[str, str]] = [
    ("from_file", "opens a file of the node"),
    ("as_strided, as_strided_, as_strided_copy, as_strided_scatter",
     "see all of a storage, also what lies outside the tensor that was given"),
    ("_reshape_alias", "checks nothing: it reads memory that is no tensor's"),
    ("set_, resize_, resize_as_, resize", "change what a tensor is behind its account"),
    ("every `out=` overload", "enlarges its target; `torch.maximum(a, b, out=c)` is sent as two operators instead"),
    ("every generator argument", "a generator has no form on the wire; `torch.manual_seed` at the node seeds it"),
    ("empty_quantized, quantize_per_tensor, dequantize", "quantized tensors have no form on the wire"),
    ("sparse_coo_tensor, to_sparse, sparse_mask, _sparse_coo_tensor_with_dims_and_tensors",
     "sparse tensors have no form on the wire: no `nn.Embedding(sparse=True)`, no `SparseAdam`"),
    ("_embedding_bag, embedding_renorm_, max_unpool2d, max_unpool3d, multi_margin_loss, multilabel_margin_loss_forward",
     "kernels that trust indices or offsets; the layers and losses that call them work: as the reviewed operators that they stand for"),
    ("_ctc_loss, histogram, stft, _trilinear, affine_grid_generator, block_diag, rot90, renorm, lcm, index_reduce, _cdist_forward",
     "likewise, by their formulas: a kernel that leaves memory unwritten, or none that is needed"),
    ("every other operator in place or on lists",
     "likewise: `x.cumsum_(0)` as a copy of what the reviewed operator gives, `torch._foreach_abs` tensor by tensor"),
    ("mkldnn_rnn_layer, _thnn_fused_lstm_cell, _scaled_dot_product_flash_attention_for_cpu, _native_multi_head_attention, "
     "_transformer_encoder_layer_fwd, _weight_norm_interface",
     "fused kernels, which trust their operands; the layers that call them work: as the reviewed operators that they stand for"),
    ("linalg_pinv, linalg_lstsq, linalg_cholesky, linalg_inv",
     "likewise: by the singular values, by the pseudo-inverse, the others with a status that the worker reads"),
    ("linalg_eig, linalg_eigvals, _linalg_eigvals",
     "end the process where elements are not finite, or nearly too large: `eigh` is for symmetric matrices, and safe"),
    ("linalg_matrix_exp, linalg_ldl_factor_ex, geqrf, ormqr, linalg_householder_product", "not reviewed"),
    ("_fused_adam_, _fused_sgd_", "not reviewed: leave `fused=True` out"),
    ("poisson, binomial, _standard_gamma", "how many random numbers they take depends on values, which the next ones would tell"),
    ("fractional_max_pool2d, conv_tbc, triangular_solve, special_airy_ai", "not reviewed"),
]  # fmt: skip
"""Operators that a reader may look for, and why they are not there. A test checks that none is in the table."""

CLOSING = """\
Overloads that torch takes apart before they reach a pointer (`reshape`, `linear`, `cross_entropy`, `square`, ...) have no number of their
own: their parts have.

To propose an operator, append it to `syftlite/ops/table.py` with its kind, add sample operands to `tests/ops/samples.py`, run the tests of
`tests/ops`, and write this page anew with `python docs/generate_operators.py`.
"""


def notes(operator: Operator) -> list[str]:
    """What sets ``operator`` apart."""
    found = {
        "in place": operator.result is Result.NOTHING,
        "writes " + " and ".join(sorted(operator.writes)): operator.writes and operator.result is not Result.NOTHING,
        "view": operator.aliases,
        "waits": operator.dynamic,
        "random": operator.kind is Kind.RANDOM and "backward" not in operator.name,
        "zero-filled": "empty" in operator.name,
        "checked": operator.number in SHAPES or operator.number in VALUES,
    }
    return [note for note, holds in found.items() if holds]


def rows(kind: Kind) -> Iterator[str]:
    """Markdown rows of the operators of ``kind``."""
    packets: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for operator in TABLE:
        if operator is not None and operator.kind is kind:
            packet, overload = operator.name.removeprefix("aten.").rsplit(".", 1)
            packets.setdefault((packet, tuple(notes(operator))), []).append(f"{overload} {operator.number}")
    for (packet, said), overloads in packets.items():
        yield f"| `{packet}` | {', '.join(overloads)} | {', '.join(said)} |"


def quoted(names: str) -> str:
    """``names`` as code, unless they are words."""
    return names if names.startswith("every") else ", ".join(f"`{name}`" for name in names.split(", "))


def render() -> str:
    """The page."""
    lines = [INTRODUCTION.format(count=sum(o is not None for o in TABLE))]
    for kind, title in KINDS.items():
        lines += [f"### {title}\n", "| operator | overloads | |", "|---|---|---|", *rows(kind), ""]
    lines += ["## What is refused, and why\n", "| operator | reason |", "|---|---|"]
    lines += [f"| {quoted(names)} | {reason} |" for names, reason in REFUSED]
    return "\n".join([*lines, "", CLOSING])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
