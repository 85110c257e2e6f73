"""Specs say of a tensor what torch says of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.ops.spec import MAX_SPECS, Spec

sizes = st.lists(st.integers(0, 4), max_size=5)


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of any strides that torch's views lead to."""
    tensor = torch.zeros(draw(sizes))
    for _ in range(draw(st.integers(0, 4))):
        if not tensor.dim():
            break
        dim = draw(st.integers(0, tensor.dim() - 1))
        step = draw(st.sampled_from(["transpose", "slice", "expand", "narrow", "channels"]))
        if step == "transpose":
            tensor = tensor.transpose(0, dim)
        elif step == "slice":
            tensor = tensor[(slice(None),) * dim + (slice(None, None, 2),)]
        elif step == "expand" and tensor.shape[dim] == 1:
            tensor = tensor.expand(*tensor.shape[:dim], 3, *tensor.shape[dim + 1 :])
        elif step == "narrow" and tensor.shape[dim]:
            tensor = tensor.narrow(dim, tensor.shape[dim] - 1, 1)
        elif step == "channels" and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor


@given(views())
@settings(deadline=None)
def test_a_spec_is_its_tensors(tensor: torch.Tensor) -> None:
    spec = Spec.of(tensor)
    assert Spec.of(tensor) is spec
    assert (spec.elements, spec.nbytes) == (tensor.numel(), tensor.numel() * 4)
    assert spec.rows == tensor.is_contiguous()
    assert spec.extent <= tensor.untyped_storage().nbytes() // 4 or not spec.elements
    meta = spec.meta
    assert (meta.shape, meta.stride(), meta.storage_offset(), meta.dtype) == (tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype)
    if spec.dense and spec.elements:
        assert spec.extent == spec.elements, "neither gap nor overlap"
    if spec.rows:
        assert spec.dense


@given(views())
@settings(deadline=None)
def test_channels_last_is_what_a_convolution_takes_it_for(tensor: torch.Tensor) -> None:
    spec = Spec.of(tensor)
    if len(spec.shape) == 4 and spec.elements and tensor.numel():
        last = torch._prims_common.suggest_memory_format(tensor) is torch.channels_last
        assert spec.channels_last == last


@given(sizes.filter(lambda s: len(s) in (4, 5) and all(s)))
def test_fresh_specs_have_torchs_strides(shape: list[int]) -> None:
    tensor = torch.empty(shape)
    assert Spec.contiguous(shape, torch.float32).stride == tensor.stride()
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    assert Spec.channels_last_of(Spec.of(tensor)).stride == torch.empty(shape, memory_format=last).stride()


def test_a_count_of_elements_does_not_wrap_around() -> None:
    assert Spec.make((1 << 32, 1 << 32), (0, 0), 0, torch.uint8).elements == 1 << 64


def test_specs_are_interned_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spec, "_all", {})
    first = Spec.make((7, 919), (919, 1), 0, torch.float32)
    assert Spec.make([7, 919], (919, 1), 0, torch.float32) is first
    for offset in range(MAX_SPECS + 1):
        Spec.make((1,), (1,), offset, torch.uint8)
    assert len(Spec._all) <= MAX_SPECS and repr(first) == "float32[7, 919]"
