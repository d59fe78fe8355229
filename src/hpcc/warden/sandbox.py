"""Drops a forked warden's rights before it reads a guest's first byte. They cannot be regained."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import socket
from collections.abc import Iterable
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.warden.filter import ARCHITECTURES, assemble, pack
from hpcc.wire.helper import ANSWER_BYTES, MAPPED

# linux/prctl.h, linux/seccomp.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_HELPER_SECONDS: Final = 20.0

# Interpreter and libraries take 120 MiB of addresses; the rest is for one request's header in
# several forms (32 MiB each at most) and for data in transit.
ADDRESS_SPACE_BYTES: Final = 512 << 20
# A backstop: the worker compares a warden's CPU time with the work that it does.
CPU_SECONDS: Final = 4 * 3600
_LIMITS: Final = {
    resource.RLIMIT_AS: ADDRESS_SPACE_BYTES,
    resource.RLIMIT_CPU: CPU_SECONDS,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    # Existing descriptors stay usable; opening new ones fails from here on.
    resource.RLIMIT_NOFILE: 0,
}

# malloc.h. Larger than asyncio's buffer, and the most that a warden keeps in vain.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxError(InfrastructureError):
    """This machine cannot confine a warden; no warden runs unconfined."""

    default_reason = "warden-sandbox"


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]  # type: ignore[mutable-override]  # the way of ctypes


def _prctl(option: int, *arguments: object) -> None:
    padded = [*arguments, *[ctypes.c_ulong(0)] * (4 - len(arguments))]
    if _libc.prctl(option, *padded) != 0:
        code = ctypes.get_errno()
        raise SandboxError(f"prctl {option}: {os.strerror(code)}")


def set_name(name: str) -> None:
    """Set this process's name, as ps shows it; at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def keep_memory() -> None:
    """Let the C library keep what is freed, for this process and those that it forks.

    asyncio reads into a new buffer of 256 KiB each time. glibc makes a mapping for that size, and
    takes it down again for a frame of 60 bytes: 18 us of 22 for such a read. Other libraries
    have no such setting.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, ctypes.c_int(_KEPT_BYTES))
        mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(_KEPT_BYTES))


def die_with_parent(parent_pid: int) -> None:
    """Let the kernel kill this process when its parent ends; exit if it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(1)


def get_ids(helper: str, request: bytes) -> None:
    """Enter a user namespace, with the ids that the worker's helper gives for a request.

    This process is root there and has no right outside.

    Raises:
        OSError: there are no namespaces for users, or the helper gave no ids.
    """
    os.unshare(os.CLONE_NEWUSER)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_HELPER_SECONDS)
        connection.connect(helper)
        connection.send(request)
        if connection.recv(ANSWER_BYTES) != MAPPED:
            raise OSError("the worker's helper gave no ids")


def keep_only(descriptors: Iterable[int]) -> None:
    """Close all other descriptors, including the standard ones."""
    low = 0
    for fd in sorted(descriptors):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def confine(*, uid: int | None, parent_pid: int) -> None:
    """Drop identity, resource limits and system calls, in the only order that works.

    Raises:
        SandboxError: a step failed, or the machine's architecture is unknown.
        OSError: the uid could not be changed.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise SandboxError(f"no seccomp filter for {platform.machine()}")
    steps = pack(assemble(architecture))
    program = _Program(len(steps) // 8, steps)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # After the change of uid, which clears it.
    die_with_parent(parent_pid)
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    for which, limit in _LIMITS.items():
        resource.setrlimit(which, (limit, limit))
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program))
