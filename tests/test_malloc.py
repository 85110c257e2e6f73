"""Freed memory stays warm: what is counted is pages that the kernel had to hand out."""

import os
import subprocess
import sys

import pytest

from syftlite import _malloc

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these are settings of glibc")

FAULTS = """
import ctypes, resource
assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0  # no huge pages, which are handed out when the kernel happens to have some
import torch, syftlite as sy
from syftlite import _malloc
{prelude}
def work():
    parts = [torch.ones(1 << 21) for _ in range(3)]  # 8 MB each
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 20 * 3 * 2048
TURNS = 8
"""What happens to lie at the heap's end, where addresses are random, may keep it from being given back, or from being one piece."""


def run(program, **settings):
    clean = {name: value for name, value in os.environ.items() if name not in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")}
    done = subprocess.run([sys.executable, "-c", program], env=clean | settings, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("prelude", ["sy.VirtualWorker(id='bob')", "_malloc.keep_warm()"])
def test_what_is_freed_is_used_again(prelude):
    assert any(run(FAULTS.format(prelude=prelude)) < PAGES / 4 for _ in range(TURNS))


def test_without_it_the_kernel_hands_pages_out_each_time():
    """The negative control."""
    assert any(run(FAULTS.format(prelude="")) > PAGES / 2 for _ in range(TURNS))


ALONE = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("_malloc", {_malloc.__file__!r})
_malloc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_malloc)
"""
"""The module without the package, which takes seconds to import and sets nothing itself."""


def test_what_a_user_has_set_stays():
    program = ALONE + "print(int(_malloc.keep_some()))"
    assert run(program) == 1
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        assert run(program, **{name: "100000"}) == 0


def test_a_process_that_keeps_everything_keeps_it():
    assert run(ALONE + "_malloc.keep_warm(); print(int(_malloc.keep_some()))") == 0
