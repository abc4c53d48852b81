"""The memory allocator: large blocks that are free do not stay with the process."""

import ctypes
import subprocess
import sys

import pytest

from optiinfra.kit.allocator import return_free_memory

_FREE_BETWEEN_SMALL = """
import ctypes, psutil
from optiinfra.kit.allocator import return_free_memory

return_free_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(24 << 20))  # from now on glibc would take blocks of this size from an arena
before = psutil.Process().memory_info().rss
large = []
for _ in range(5):
    large.append(libc.malloc(20 << 20))
    ctypes.memset(large[-1], 1, 20 << 20)
    ctypes.memset(libc.malloc(100_000), 1, 100_000)  # stays
for block in large:
    libc.free(block)
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def test_large_blocks_between_small_ones_are_returned_when_they_are_free() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _FREE_BETWEEN_SMALL], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(ran.stdout) < 20


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[None] = []

    def open_library(name: None) -> object:
        opened.append(name)
        return object()  # has no `mallopt`

    monkeypatch.setattr(ctypes, "CDLL", open_library)
    return_free_memory()
    assert opened == [None]
