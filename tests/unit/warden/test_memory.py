"""A warden reads into a new buffer of 256 KiB each time, which should cost no mapping."""

from __future__ import annotations

import subprocess
import sys

import pytest

# It starts with glibc's own threshold, M_MMAP_THRESHOLD, whatever the interpreter has freed so far.
# hblks is how many blocks are mappings.
_PROGRAM = """
import ctypes
from hpcc.warden.sandbox import keep_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

libc.mallinfo2.restype = Info

def mappings():
    before = libc.mallinfo2().hblks
    # More than the heap has room for: a block that fits there is never a mapping.
    for _ in range(64):
        libc.malloc(256 << 10)
    return libc.mallinfo2().hblks - before

libc.mallopt(-3, 128 << 10)
print(mappings() > 0)
keep_memory()
print(mappings() > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_read_buffer_is_no_mapping() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "False"]
