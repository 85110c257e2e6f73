"""Numbers that are written beside a pointer, as in `x[[0, 2], 1:]` and `x.new_tensor([0, 2])`: torch would make tensors of them here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, unpad_sequence

from syftlite.remote.constants import taking_constants, within
from syftlite.remote.handle import RemoteTensor
from syftlite.remote.rules import at_worker

_NUMBERS = (int, bool)
_LISTS = (list, tuple, range)
_PLACES = {int, slice, type(None), type(...)}
_ORDERS = {f.__code__ for f in (pack_padded_sequence, pad_packed_sequence, rnn._apply_permutation)}
"""What puts sequences in the order of their lengths, and back: an order of numbers that are here."""
_STEPS = {unpad_sequence.__code__}


class Indexed(torch.Tensor if TYPE_CHECKING else object):  # type: ignore[misc]
    """What is indexed where it is: lists of ints or bools go there, and so do the values of new tensors like it."""

    __slots__ = ()

    def _beside(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` where this one is."""
        raise NotImplementedError

    def new_tensor(
        self, data: Any, dtype: torch.dtype | None = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
    ) -> torch.Tensor:
        """``data``, which is written here, as a tensor where this one is."""
        dtype = self.dtype if dtype is None else dtype
        made = data.detach().to(dtype, copy=True) if isinstance(data, torch.Tensor) else self._beside(torch.tensor(data, dtype=dtype))
        return made.requires_grad_(requires_grad)

    def __getitem__(self, index: Any) -> torch.Tensor:
        kind = type(index)
        if kind in _PLACES or (kind is tuple and _PLACES.issuperset(map(type, index))):
            part: torch.Tensor = super().__getitem__(index)
            return part
        if kind in _LISTS:
            index = self._numbers_there(index)
        elif kind is torch.Tensor and within(_STEPS):  # which of them a sequence has, by a length that is here
            return self.index_select(0, at_worker(index.nonzero().flatten(), self))
        with _truths_of(index):
            part = super().__getitem__(index)
        return part

    def __setitem__(self, index: Any, value: Any) -> None:
        if type(index) in _LISTS:
            index = self._numbers_there(index)
        with _truths_of(index):
            super().__setitem__(index, value)

    def index_select(self, dim: Any, index: torch.Tensor) -> torch.Tensor:
        """As torch's. The order of sequences' lengths, which torch makes here, goes there."""
        chosen: torch.Tensor = super().index_select(dim, at_worker(index, self) if within(_ORDERS) else index)
        return chosen

    def _numbers_there(self, index: Any) -> Any:
        if type(index) is tuple:
            return tuple([self._listed(part) if type(part) in _LISTS and _holds_numbers(part) else part for part in index])
        return self._listed(index) if all(type(part) in _NUMBERS for part in index) else index

    def _listed(self, numbers: Any) -> torch.Tensor:
        made = torch.tensor(numbers)
        return self._beside(made if made.numel() else made.long())


def _holds_numbers(part: Any) -> bool:
    return type(part) in _NUMBERS or (type(part) in _LISTS and all(map(_holds_numbers, part)))


def _truths_of(index: Any) -> AbstractContextManager[None]:
    """While ``index`` has truths in it, torch makes indices of them here: of one zero for each, or of none. A vector that is here is the
    caller's, and stays."""
    parts = index if type(index) is tuple else (index,)
    if not any(map(_is_truth, parts)) or any(isinstance(p, torch.Tensor) and p.dim() and not isinstance(p, RemoteTensor) for p in parts):
        return _AS_IT_IS
    return taking_constants()


def _is_truth(part: Any) -> bool:
    return type(part) is bool or (isinstance(part, torch.Tensor) and part.dtype is torch.bool and not part.dim())


_AS_IT_IS: AbstractContextManager[None] = nullcontext()
