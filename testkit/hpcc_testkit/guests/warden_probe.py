"""A zygote whose wardens attempt forbidden calls: `python -I …/warden_probe.py FD PID`.

It is the product's zygote with other work, so the wardens drop all rights before an attempt runs.
The worker's end sends the name of an attempt and gets its outcome as text, or nothing if the kernel
ended the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_NAME_BYTES: Final = 64
_AT_FDCWD: Final = -100
_CLONE_NEWUSER: Final = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)
# Call numbers on x86-64 and arm64 for which libc has no function.
_IO_URING_SETUP: Final = 425
_PIDFD_OPEN: Final = 434
_OPENAT2: Final = 437
_LONG: Final = ctypes.c_long


_MACHINE: Final = os.uname().machine
# clone(2) has a different number on each; used here with the flags of a thread.
_CLONE: Final = 56 if _MACHINE == "x86_64" else 220
_THREAD_FLAGS: Final = 0x10F00
_stream: list[socket.socket] = []


def _a_descriptor() -> int:
    return _stream[0].fileno()


ATTEMPTS: Final[dict[str, Callable[[], object]]] = {
    "nothing": lambda: "done",
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "openat2": lambda: _libc.syscall(_LONG(_OPENAT2), _LONG(_AT_FDCWD), b"/", b"", _LONG(24)),
    "stat": lambda: Path("/etc/passwd").stat(),
    "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "unix socket": socket.socketpair,
    "fork": os.fork,
    "thread": lambda: _libc.syscall(_LONG(_CLONE), _LONG(_THREAD_FLAGS), _LONG(0)),
    "exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - refused
    "ptrace": lambda: _libc.ptrace(_LONG(16), _LONG(os.getppid()), None, None),
    "kill": lambda: os.kill(os.getpid(), signal.SIGUSR1),
    "prlimit": lambda: resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64)),
    "setuid": lambda: os.setuid(0),
    "unshare": lambda: _libc.unshare(_CLONE_NEWUSER),
    "prctl": lambda: _libc.prctl(4, _LONG(1)),
    "dup": lambda: os.dup(_a_descriptor()),
    "pipe": os.pipe,
    "memfd": lambda: os.memfd_create("x"),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "io_uring": lambda: _libc.syscall(_LONG(_IO_URING_SETUP), _LONG(1), None),
    "pidfd": lambda: _libc.syscall(_LONG(_PIDFD_OPEN), _LONG(1), _LONG(0)),
    "receive a descriptor": lambda: socket.recv_fds(_stream[0], 1, 1, socket.MSG_DONTWAIT),
    "out-of-band data": lambda: _stream[0].send(b"x", socket.MSG_OOB),
    "terminal ioctl": lambda: os.get_terminal_size(_a_descriptor()),
    "call of another ABI": lambda: _libc.syscall(_LONG(0x40000000 + 39)),
}


async def try_it(guest: socket.socket, worker: socket.socket) -> None:
    """Run the attempt that the worker names and send its outcome."""
    del guest
    # A timeout would call poll(), which a warden may not.
    worker.settimeout(None)
    _stream.append(worker)
    name = worker.recv(_NAME_BYTES).decode()
    try:
        outcome = f"returned {ATTEMPTS[name]()!r}"
    except Exception as error:  # noqa: BLE001 - the outcome is what is asked for
        outcome = f"raised {type(error).__name__}: {error}"
    worker.send(outcome.encode())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "src"))
    from hpcc.warden.harden import harden
    from hpcc.warden.zygote import run

    harden()
    run(socket.socket(fileno=int(sys.argv[1])), try_it)
