"""Takes this process's rights before it reads hostile bytes. They cannot be regained.

Landlock (Linux, `Documentation/userspace-api/landlock.rst`) works for root and for other users. It
leaves the files that are named here, no TCP, no signals to others' processes and no tracing of
them. A child has no more rights than its parent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError

# linux/landlock.h. The calls have the same numbers on all architectures.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_FILE: Final = 1 << 5
_MAKE_REG: Final = 1 << 8
_TRUNCATE: Final = 1 << 14
# How many rights on files each version knows, from the first one on.
_RIGHTS: Final = (0, 13, 14, 15, 15, 16)
_NET_VERSION: Final = 4
_NET_ALL: Final = 0b11
_SCOPE_VERSION: Final = 6
# Abstract sockets and signals.
_SCOPE_ALL: Final = 0b11
_READ: Final = _READ_FILE | _READ_DIR | _EXECUTE
_WRITE: Final = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# linux/prctl.h, linux/capability.h
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = 63
# A directory of root's may be below another user's. Landlock bounds what this opens.
_CAP_DAC_OVERRIDE: Final = 1
# The last is the answer of a container whose filter does not know the call.
_NO_LANDLOCK: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def confine(*, readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Leave this process `readable` files and directories, and `writable` directories; no others.

    Returns False if this kernel has no Landlock; capabilities are dropped nevertheless. Call it in
    a process with one thread: other threads keep their rights.

    Raises:
        InfrastructureError: the kernel refused a step.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _checked("prctl", libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _drop_capabilities(libc)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    has_landlock = bool(version > 0)
    if has_landlock:
        _restrict(libc, version, [*readable], [*writable])
    elif ctypes.get_errno() not in _NO_LANDLOCK:
        _checked("landlock", version)
    return has_landlock


def _restrict(libc: ctypes.CDLL, version: int, readable: list[Path], writable: list[Path]) -> None:
    handled = (1 << _RIGHTS[min(version, len(_RIGHTS) - 1)]) - 1
    net = _NET_ALL if version >= _NET_VERSION else 0
    scope = _SCOPE_ALL if version >= _SCOPE_VERSION else 0
    attributes = struct.pack("QQQ", handled, net, scope)
    # An older kernel knows the first fields only, and refuses more than zeros after them.
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    _checked("landlock_create_ruleset", min(rules, 0))
    try:
        for paths, rights in ((readable, _READ), (writable, _WRITE)):
            for path in paths:
                _allow(libc, rules, path, rights & handled)
        _checked("landlock_restrict_self", libc.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, place)
        result = libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
        _checked(f"landlock_add_rule {path}", result)
    finally:
        os.close(place)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Drop what root has beyond its uid; another user has none of it."""
    if os.geteuid() != 0:
        return
    for capability in range(_LAST_CAPABILITY + 1):
        if capability != _CAP_DAC_OVERRIDE:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # the kernel has fewer
    _checked("prctl", libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    kept = (1 << _CAP_DAC_OVERRIDE) if _has_dac_override() else 0
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable, for the first 32 capabilities and the rest.
    _checked("capset", libc.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0)))


def _has_dac_override() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    (permitted,) = [int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")]
    return bool(permitted >> _CAP_DAC_OVERRIDE & 1)


def _checked(what: str, result: int) -> None:
    if result != 0:
        text = os.strerror(ctypes.get_errno())
        raise InfrastructureError(f"no confinement: {what}: {text}", reason="builder-sandbox")
