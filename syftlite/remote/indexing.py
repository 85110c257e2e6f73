"""Indices that are written as lists, as in `x[[0, 2], 1:]`: numbers, which torch would make tensors of here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

_NUMBERS = {int, bool}
_MAY_LIST = (list, tuple)


class Indexed(torch.Tensor if TYPE_CHECKING else object):  # type: ignore[misc]
    """What is indexed where it is: lists of ints or bools go there."""

    __slots__ = ()

    def _beside(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` where this one is."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> torch.Tensor:
        part: torch.Tensor = super().__getitem__(self._numbers_there(index) if type(index) in _MAY_LIST else index)
        return part

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._numbers_there(index) if type(index) in _MAY_LIST else index, value)

    def _numbers_there(self, index: Any) -> Any:
        if type(index) is tuple:
            return tuple([self._numbers_there(part) if type(part) is list else part for part in index])
        if not _NUMBERS.issuperset(map(type, index)):
            return index
        return self._beside(torch.tensor(index, dtype=None if index else torch.int64))
