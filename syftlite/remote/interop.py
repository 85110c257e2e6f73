"""What other libraries hold as a tensor of this process: what `send`, `load` and `load_data` accept besides tensors.

    __dlpack__            CuPy, JAX, Arrow, ... by DLPack, from any device
    numpy.ndarray         and numbers, and nested lists of them
    pandas.DataFrame      (rows, columns), of numbers, in the columns' common dtype; pandas.Series: (rows)

pandas is never imported: whoever gives a frame has done so.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch


def as_tensor(given: Any) -> torch.Tensor:
    """``given`` as a local tensor, with the tags that it carries. Raises TypeError, naming the column, for what is not numbers."""
    if isinstance(given, torch.Tensor):
        return given
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(given, pandas.DataFrame):
        return _from_array(_frame(given))
    if pandas is not None and isinstance(given, pandas.Series):
        name = "the series" if given.name is None else f"series {given.name!r}"
        return _from_array(_column(given, name))
    if not isinstance(given, (np.ndarray, np.generic)) and hasattr(given, "__dlpack__"):
        return _from_dlpack(given)
    return _from_array(np.asarray(given))


def is_foreign_tensor(given: Any) -> bool:
    """Whether ``given`` is another library's tensor, as DLPack has it; not NumPy's and no tensor of torch's."""
    return hasattr(given, "__dlpack__") and not isinstance(given, (np.ndarray, np.generic, torch.Tensor))


def _from_array(values: np.ndarray[Any, Any]) -> torch.Tensor:
    try:
        tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]).reshape(values.shape))
    except TypeError as error:
        raise TypeError(f"an array of {values.dtype} cannot be sent: {error}") from None
    return tensor


def _from_dlpack(given: Any) -> torch.Tensor:
    try:
        return torch.from_dlpack(given).cpu()  # type: ignore[attr-defined]
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"this {type(given).__name__} offers DLPack and cannot be sent: {error}") from None


def _frame(frame: Any) -> np.ndarray[Any, Any]:
    """(rows, columns)"""
    if not len(frame.columns):
        raise TypeError("a DataFrame without columns cannot be sent")
    columns = [_column(frame.iloc[:, at], f"column {name!r}") for at, name in enumerate(frame.columns)]
    return np.stack([c.astype(np.result_type(*columns)) for c in columns], axis=1)


def _column(column: Any, name: str) -> np.ndarray[Any, Any]:
    """(rows)"""
    kind = getattr(column.dtype, "kind", "O")
    if kind not in "biufc":
        raise TypeError(f"{name} holds {column.dtype}, and only numbers can be sent: leave it out, or make numbers of it")
    if not isinstance(column.dtype, np.dtype) and column.hasnans:  # a nullable dtype; in NumPy's a missing value is nan already
        raise TypeError(f"{name} has missing values, and {column.dtype} has no number for them: fillna() first, or astype(float)")
    values: np.ndarray[Any, Any] = column.to_numpy()
    return values if values.dtype.kind in "biufc" else values.astype(getattr(column.dtype, "numpy_dtype", np.float64))
