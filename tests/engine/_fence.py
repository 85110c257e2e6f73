"""Runs operators, through the executor, on operands whose memory lies between two unreadable pages: a kernel that leaves it dies.

    python _fence.py SAMPLES OPERATOR...      prints what it is about to do; the last line names what killed it

Each operator gets its sample operands with one of them changed: another shape, another dtype, values that no index may have.
"""

import ctypes
import importlib.util
import mmap
import os
import sys
import warnings
from pathlib import Path

import torch

from syftlite.engine import executor
from syftlite.engine.admission import Deferred
from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import ProtocolError
from syftlite.ops.dtypes import FORMAT_OF, NUMBER_OF
from syftlite.ops.operator import Result
from syftlite.ops.table import TABLE

_spec = importlib.util.spec_from_file_location("operator_samples", Path(__file__).parent.parent / "ops" / "samples.py")
samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(samples)

PAGE = mmap.PAGESIZE
PREFIX = 7
INTEGERS = (torch.int64, torch.int32, torch.uint8)
ADDRESSES = (-1, -2, 10**6, 10**8, 10**9, -(10**6), -(10**9), 2**33, 2**40, 2**62, -(2**62))
SIZES = (0, 1, -1, 2, 1000, -1000, 2**31, 2**62, -(2**62))
DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.bfloat16, torch.complex64)
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def fenced(tensor, before, held):
    """A copy of ``tensor`` that begins right behind an unreadable page (``before``), or ends right before one."""
    if not tensor.numel():
        return tensor.clone()
    extent = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    nbytes = extent * tensor.element_size()
    pages = -(-nbytes // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    start = ctypes.addressof((ctypes.c_char * (pages * PAGE)).from_buffer(memory))
    flat = torch.frombuffer(memory, dtype=tensor.dtype, offset=PAGE if before else (pages - 1) * PAGE - nbytes, count=extent)
    flat.copy_(torch.as_strided(tensor, (extent,), (1,)))
    for page in (start, start + (pages - 1) * PAGE):
        if libc.mprotect(page, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    held.append(memory)
    return flat.as_strided(tensor.shape, tensor.stride())


def of_shape(shape, tensor):
    """A tensor of ``shape`` with values of ``tensor``'s."""
    values = tensor.reshape(-1) if tensor.numel() else torch.zeros(1, dtype=tensor.dtype)
    count = torch.Size(shape).numel()
    return values.repeat(-(-max(count, 1) // values.numel()))[:count].reshape(shape)


def changed_tensors(tensor):
    shape = list(tensor.shape)
    for dim, size in enumerate(shape):
        for other in {0, 1, size - 1, size + 1, size * 7} - {size, -1}:
            yield f"size {other} in dim {dim}", of_shape([*shape[:dim], other, *shape[dim + 1 :]], tensor)
    for other in (shape[1:], shape[:-1], [], [tensor.numel()], [1, *shape], [2, *shape], [*shape, 3], [1] * len(shape)):
        yield f"shape {other}", of_shape(other, tensor)
    for dtype in DTYPES:
        yield str(dtype), tensor.to(dtype)
    if tensor.dtype in INTEGERS and tensor.numel():
        for value in ADDRESSES if tensor.dtype is torch.int64 else (-1, 100, 2**30):
            try:
                one = tensor.clone(memory_format=torch.contiguous_format)
                one.view(-1)[-1] = value
                yield f"values {value}", torch.full_like(tensor, value)
                yield f"last value {value}", one
            except RuntimeError:  # it has no such value
                continue


def changed(value):
    """(what was changed, the value instead of ``value``)"""
    if isinstance(value, torch.Tensor):
        yield from changed_tensors(value)
    elif type(value) is int:
        yield from ((str(other), other) for other in (*SIZES, value - 1, value + 1))
    elif type(value) in (list, tuple):
        for position, item in enumerate(value):
            for what, other in changed(item):
                yield f"item {position}: {what}", [*value[:position], other, *value[position + 1 :]]
        yield from (("empty", []), ("one fewer", list(value)[:-1]), ("twice", [*value, *value]))
    if value is not None:
        yield "None", None


def cases(sample):
    """(what was changed, args, kwargs)"""
    args, kwargs = list(sample.args), sample.kwargs
    yield "nothing", args, kwargs
    for position, value in enumerate(args):
        for what, other in changed(value):
            yield f"argument {position}: {what}", [*args[:position], other, *args[position + 1 :]], kwargs
    for name, value in kwargs.items():
        for what, other in changed(value):
            yield f"{name}: {what}", args, {**kwargs, name: other}


class Bench:
    """Sends one case after the other to the executor, as OPs and ASKs of a hostile client."""

    def __init__(self, operator, before):
        self.operator, self.before = operator, before

    def run(self, args, kwargs):
        session, held = Session(PREFIX, Principal("eve", Role.SCIENTIST), 64 << 20), []
        count = iter(range(1, 1 << 20))

        def wire(value):
            if isinstance(value, samples.Local):
                return [NUMBER_OF[value.tensor.dtype], value.tensor.item()]
            if isinstance(value, torch.Tensor):
                number = (PREFIX << 32) + next(count)
                session.put(number, fenced(value, self.before, held))
                return number
            if type(value) in (list, tuple):
                return [wire(v) for v in value]
            if isinstance(value, torch.dtype):
                return NUMBER_OF[value]
            return FORMAT_OF[value] if isinstance(value, torch.memory_format) else value

        sent = [wire(v) for v in args]
        for position, value in enumerate(args):
            if type(value) in (int, bool) and position < len(self.operator.codes) and self.operator.codes[position] in "Tt":
                sent[position] = [value]
        named = {name: wire(value) for name, value in kwargs.items()} or None
        if self.operator.dynamic:
            try:
                executor.evaluate(session, self.operator.number, sent, named, lambda label: None)
            except Exception:  # any error will do; a signal will not
                pass
        base = (PREFIX << 32) + (1 << 20)
        forms = {Result.NOTHING: [None], Result.ONE: [base]}.get(self.operator.result, [[*range(base, base + n)] for n in range(1, 6)])
        for outs in forms:
            try:
                executor.run(session, self.operator.number, sent, named, outs)
            except (ProtocolError, Deferred):
                pass


def overlapping(sample):
    return any(
        0 in t.stride() and t.numel() > 1 for t in (*sample.args, *sample.kwargs.values()) if isinstance(t, torch.Tensor)
    )


def main(most, numbers):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for number in numbers:
        operator = TABLE[number]
        for index, sample in enumerate(samples.samples(operator)[:most]):
            if overlapping(sample):
                continue
            for what, args, kwargs in cases(sample):
                os.write(1, f"{operator.name}, sample {index}, {what}\n".encode())
                for before in (False, True):
                    Bench(operator, before).run(args, kwargs)
    os.write(1, b"done\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(number) for number in sys.argv[2:]])
