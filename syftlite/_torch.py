"""Every semi-private torch name that syftlite uses, each with its reason.

make_wrapper          the only way to make a tensor with a true shape and dtype and no storage; used by torchao, DTensor, FakeTensor
no_torch_function     turns `__torch_function__` off for a class, so that an operator reaches `__torch_dispatch__` in 1.6 us, not 4
TorchDispatchMode     public in documentation, private in path: makes factories inside `with worker:` land on the worker
correct_aliasing      after an in-place view operator, gives the wrapper the new sizes and strides
DisableTorchFunction  lets a worker's `__torch_function__` call the original `Tensor.to`
"""

from typing import Any, Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode", "aten", "make_wrapper", "no_torch_function", "parse_to"]

make_wrapper: Callable[..., Any] = torch.Tensor._make_wrapper_subclass
no_torch_function: Any = torch._C._disabled_torch_function_impl
parse_to: Callable[..., Any] = torch._C._nn._parse_to
aten: Any = torch.ops.aten
