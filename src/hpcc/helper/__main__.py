"""`python -I -m hpcc.helper USER`: maps guests' user ids for the workers that run as USER.

The problem: each VMM and each warden has a separate user id, so that one that a guest took over
cannot touch the next. Only root may give a process another id. A worker that parses what every
tenant sends should not be root.

A worker's process may make a user namespace without any right, and has all rights in it. What it
lacks is ids: it may map its own one only. This helper maps more. The process makes its namespace,
connects, and asks for some of the ids that are reserved for guests. The helper writes them, and the
process's own id as root's, into the namespace's maps. From then on the process may change to these
ids and to no others, and needs no helper any more.

An example: a worker starts a VMM with id 2000683136. `unshare` makes namespaces; its child,
`hpcc.runtime.qemu.jailed`, asks for (2000683136, 1), builds the jail and becomes that id.

systemd opens the socket, SOCK_SEQPACKET, as descriptor 3. A connection carries one request, and its
kernel-made credentials say who asks. Nothing that a caller sends becomes a path or a text.

Its rights are CAP_SETUID and CAP_SETGID. The kernel lets only a namespace's owner open the maps, so
the helper's effective user is the worker's. Its real one is root: no process of the worker can end,
trace or change it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.wire import helper as wire

_LISTENER: Final = 3
# A caller that connects and says nothing delays the next one, which is the same user's.
_REQUEST_SECONDS: Final = 2.0
# linux/capability.h: CAP_SETGID and CAP_SETUID.
_CAPABILITY_VERSION_3: Final = 0x20080522
_RIGHTS: Final = 1 << 6 | 1 << 7
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h
_MAX_GROUPS: Final = 256
_KVM: Final = Path("/dev/kvm")
_CREDENTIALS: Final = struct.Struct("iII")
_MAP_FLAGS: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Peer(NamedTuple):
    """Who connected, as the kernel says."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]


def main(argv: Sequence[str]) -> int:
    """Serve the socket that systemd opened, for the user in `argv`."""
    try:
        uid = pwd.getpwnam(argv[1]).pw_uid
    except (IndexError, KeyError):
        sys.stderr.write("usage: python -I -m hpcc.helper USER, where USER runs workers\n")
        return 2
    if uid == 0:
        sys.stderr.write("a worker of root needs no helper\n")
        return 2
    keep_two_rights(uid)
    with socket.socket(fileno=_LISTENER) as listener:
        while True:
            serve_one(listener, uid)


def keep_two_rights(uid: int) -> None:
    """Give up all rights but two, and let `uid` be this process's effective user.

    Raises:
        OSError: this process has not these rights.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    os.seteuid(uid)
    # Effective, permitted and inheritable, for the first 32 capabilities and the rest.
    data = struct.pack("6I", _RIGHTS, _RIGHTS, 0, 0, 0, 0)
    if libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), data) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def serve_one(listener: socket.socket, uid: int) -> None:
    """Answer the next caller; only processes of `uid` get ids."""
    try:
        connection, _ = listener.accept()
    except ConnectionError:
        return
    with connection, suppress(OSError):  # the caller has gone, or says nothing
        connection.settimeout(_REQUEST_SECONDS)
        packet = connection.recv(wire.READ_BYTES)
        connection.send(_answer(packet, connection, uid), socket.MSG_NOSIGNAL)


def _answer(packet: bytes, connection: socket.socket, uid: int) -> bytes:
    try:
        request = wire.decode_request(packet)
        write_maps(request, peer_of(connection), uid)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return wire.MALFORMED
    except OSError as error:
        sys.stderr.write(f"no ids were given: {error.strerror}\n")
        return wire.REFUSED
    return wire.MAPPED


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected. The kernel noted it when they did.

    Raises:
        OSError: the kernel does not say it.
    """
    text = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MAX_GROUPS)
    pid, uid, gid = _CREDENTIALS.unpack(text)
    return Peer(pid, uid, gid, struct.unpack(f"{len(groups) // 4}I", groups))


def write_maps(request: wire.MapRequest, peer: Peer, uid: int) -> None:
    """Write the maps of the user namespace that the peer is in.

    The kernel takes them once, and only if the namespace is a direct child of this process's.
    Nothing else can be hit: this process's own namespace and others' have their maps already.

    Raises:
        OSError: the peer is another user's, or the kernel refused.
    """
    if peer.uid != uid or peer.gid == 0 or peer.pid <= 0:
        raise PermissionError(1, "not a worker's process")
    process = os.open(f"/proc/{peer.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The peer may have ended and its number be another process's.
        if os.fstat(process).st_uid != uid:
            raise PermissionError(1, "not a worker's process any more")
        ids = f"{request.first} {request.first} {request.size}\n"
        _write(process, "gid_map", f"0 {peer.gid} 1\n{ids}{_device_group(peer)}")
        _write(process, "uid_map", f"0 {uid} 1\n{ids}")
    finally:
        os.close(process)


def _device_group(peer: Peer) -> str:
    """Return the map's line for the group of /dev/kvm, if the peer is in it."""
    try:
        status = _KVM.stat()
    except OSError:
        return ""
    gid = status.st_gid
    has_rights = bool(status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP)
    if not has_rights or gid in (0, peer.gid) or gid not in peer.groups:
        return ""
    return f"{gid} {gid} 1\n"


def _write(process: int, name: str, text: str) -> None:
    fd = os.open(name, _MAP_FLAGS, dir_fd=process)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
