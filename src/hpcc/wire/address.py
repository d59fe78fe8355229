"""The path of the daemon's socket, as launcher and daemon compute it."""

from __future__ import annotations

from typing import Final

# sun_path holds 108 bytes with its NUL (unix(7)).
MAX_SOCKET_PATH_BYTES: Final = 107


def fnv1a(data: bytes) -> int:
    """Return 64-bit FNV-1a. It names a socket in a directory that only its user can write to."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def daemon_socket(run_dir: bytes, uid: int) -> bytes:
    """Return the path of the daemon's socket; the counterpart of `find_place` in launcher/wire.h.

    A path too long for a socket is replaced by a hashed name in a directory of the user in /tmp.
    """
    path = run_dir + (b"" if run_dir.endswith(b"/") else b"/") + b"daemon.sock"
    if len(path) <= MAX_SOCKET_PATH_BYTES:
        return path
    return b"/tmp/hpcc-%d/%016x.sock" % (uid, fnv1a(path))
