"""Dtypes by number. Numbers are part of the protocol: append only."""

from __future__ import annotations

import torch

from syftlite.errors import Misuse

DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.complex128,
)
NUMBER_OF: dict[torch.dtype, int] = {dtype: number for number, dtype in enumerate(DTYPES)}
MEMORY_FORMATS: tuple[torch.memory_format, ...] = (
    torch.contiguous_format,
    torch.preserve_format,
    torch.channels_last,
    torch.channels_last_3d,
)
FORMAT_OF: dict[torch.memory_format, int] = {f: number for number, f in enumerate(MEMORY_FORMATS)}


def number_of(dtype: torch.dtype) -> int:
    """The number of ``dtype``. Raises `Misuse` if it has none."""
    number = NUMBER_OF.get(dtype)
    if number is None:
        raise Misuse(f"{dtype} does not travel; convert the tensor to one of {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}")
    return number
