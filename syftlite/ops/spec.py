"""Spec: what is known of a tensor without its values. Interned, so that equal specs are one object and hash by identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch

MAX_SPECS = 65_536


class Spec:
    """Shape, stride, storage offset (elements) and dtype of a tensor. Make one with `Spec.of` or `Spec.make`."""

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    _all: ClassVar[dict[tuple[torch.Size, tuple[int, ...], int, torch.dtype], Spec]] = {}

    @classmethod
    def make(cls, shape: Sequence[int], stride: tuple[int, ...], offset: int, dtype: torch.dtype) -> Spec:
        """The one spec with these values."""
        key = (torch.Size(shape), stride, offset, dtype)
        spec = cls._all.get(key)
        if spec is None:
            if len(cls._all) >= MAX_SPECS:  # a spec still in use lives on outside the table; it only misses caches
                cls._all.clear()
            spec = cls._all[key] = cls()
            spec.shape, spec.stride, spec.offset, spec.dtype = key
        return spec

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Spec:
        """The spec of ``tensor``, views included."""
        found = cls._all.get((tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype))  # type: ignore[arg-type]
        return found or cls.make(tensor.shape, tensor.stride(), int(tensor.storage_offset()), tensor.dtype)

    @classmethod
    def contiguous(cls, shape: Sequence[int], dtype: torch.dtype) -> Spec:
        """The spec of a fresh row-major tensor of ``shape``."""
        stride, step = [], 1
        for size in reversed(shape):
            stride.append(step)
            step *= max(size, 1)
        return cls.make(shape, tuple(reversed(stride)), 0, dtype)

    @classmethod
    def channels_last_of(cls, spec: Spec) -> Spec:
        """``spec`` (n, c, ...) as a fresh tensor with the channels innermost."""
        stride, step = [0] * len(spec.shape), 1
        for dim in (1, *range(len(spec.shape) - 1, 1, -1), 0):
            stride[dim] = step
            step *= max(spec.shape[dim], 1)
        return cls.make(spec.shape, tuple(stride), 0, spec.dtype)

    @cached_property
    def channels_last(self) -> bool:
        """Whether torch's kernels take it for an (n, c, h, w) or (n, c, d, h, w) tensor with the channels innermost, by its strides."""
        if len(self.shape) not in (4, 5) or not self.stride[1]:
            return False
        least = 0
        for dim in (1, *range(len(self.shape) - 1, 1, -1), 0):
            if not self.shape[dim] or self.stride[dim] < least or (dim == 0 and least == self.stride[1]):
                return False
            least = self.stride[dim] * (self.shape[dim] if self.shape[dim] > 1 else 1)
        return True

    @cached_property
    def meta(self) -> torch.Tensor:
        """A meta tensor of this spec. Interned with it: never run an operator on it that changes its metadata."""
        with torch.inference_mode(False):  # one made in inference mode could not serve an in-place operator outside it
            whole = torch.empty(self.offset + self.extent, dtype=self.dtype, device="meta")
            return whole.as_strided(self.shape, self.stride, self.offset)

    @cached_property
    def extent(self) -> int:
        """Elements of storage from the first to behind the last."""
        return sum((d - 1) * s for d, s in zip(self.shape, self.stride, strict=True) if d) + 1

    @cached_property
    def dense(self) -> bool:
        """Whether the elements fill their storage without gap or overlap, in whatever order of dimensions."""
        expected = 1
        for step, size in sorted((s, d) for s, d in zip(self.stride, self.shape, strict=True) if d != 1):
            if step != expected:
                return self.elements == 0
            expected *= size
        return True

    @cached_property
    def rows(self) -> bool:
        """Whether the elements lie in row-major order without gaps: what torch calls contiguous."""
        expected = 1
        for step, size in zip(reversed(self.stride), reversed(self.shape), strict=True):
            if size != 1 and step != expected:
                return self.elements == 0
            expected *= size
        return True

    @cached_property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)  # exact, where torch's own count wraps around

    @cached_property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy."""
        return self.elements * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"
