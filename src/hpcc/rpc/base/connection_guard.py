"""Bounds the connections of each address to a port that gRPC serves. Linux only.

The problem: gRPC accepts every connection and makes its TLS handshake. It shows no connection to
its user before a call arrives, and has no limit for one address. One address can so hold thousands
of connections that say nothing, and let the server compute handshakes all day.

gRPC asks for its certificate before each handshake. That is the moment when this module looks at
the process's own sockets: a new one at the port is counted for its peer's address
(`ConnectionLimit`), and shut down if it may not stay. gRPC then sees its end and forgets it.

An address that goes on connecting all the same is stopped in the kernel, where it costs no
handshake: a classic socket filter at the listening socket drops its packets. A connection that is
established has passed, and its own filter lets its packets through. Kernels that let no user
without rights attach a filter leave it at shutting down.

`ban` is for an address that floods in another way (`hpcc.rpc.base.header_flood`): all its
connections end, and it is excluded for a minute.

What must never happen: another file is shut down because gRPC closed the socket meanwhile and its
number is that file's. So the number is duplicated first, and what it stands for is compared then.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.ports import Clock
from hpcc.rpc.base.connection_limit import ConnectionLimit, source_of

_log: Final = logging.getLogger(__name__)
REASON: Final = "connections-per-address"
_BAN_REASON: Final = "header-flood"
_OWN_FILES: Final = Path("/proc/self/fd")
_LOOK_SECONDS: Final = 1.0
# Looking may take a fifth of one processor.
_PAUSE: Final = 4.0
_REPORT_SECONDS: Final = 60.0
_MAX_REPORTED: Final = 20
# After a ban gRPC needs a while to free the calls of the connections that ended.
_FREE_SECONDS: Final = 5.0
# asm-generic/socket.h. Each excluded address is a few instructions; the kernel takes 4,096.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_MAX_EXCLUDED: Final = 500
# linux/filter.h: loads from the network header, comparisons, and the two ends.
_NETWORK_HEADER: Final = 0xFFF0_0000
_LOAD_BYTE, _LOAD_WORD, _AND, _IF_EQUAL, _JUMP, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x05, 0x06
_IPV4: Final = 4
_PASS, _DROP = 0xFFFF_FFFF, 0
_INSTRUCTION: Final = struct.Struct("HBBI")
_PROGRAM: Final = struct.Struct("HP")


class _Known(NamedTuple):
    """A socket of this process. `address` is "" for one that is not a connection to the port."""

    inode: int
    address: str


class ConnectionGuard:
    """Watches one port of this process, until nothing listens there any more."""

    def __init__(self, port: int, limit: ConnectionLimit, clock: Clock) -> None:
        self._port, self._limit, self._now = port, limit, clock.monotonic
        self._lock = threading.Lock()
        self._known: dict[int, _Known] = {}
        self._listeners: dict[int, int] = {}
        self._excluded: frozenset[str] = frozenset()
        self._can_filter = True
        self._next_at = self._report_at = float("-inf")
        self._free_at = float("inf")
        self._bans_said, self._bans_from = 0, float("-inf")

    def start(self) -> None:
        """Watch in a thread, which ends with the server."""
        threading.Thread(target=self._run, name=f"connections-{self._port}", daemon=True).start()

    def on_connection(self) -> None:
        """Look soon after a connection was accepted. gRPC's threads call this."""
        try:
            if self._now() >= self._next_at:
                self.look()
        except Exception:  # noqa: BLE001 - a root: after an error here gRPC refuses everybody
            _log.exception("connections are not counted")

    def look(self) -> bool:
        """Count what is new and what has ended; return whether anything listens at the port."""
        if not self._lock.acquire(blocking=False):
            return True
        try:
            begun = self._now()
            with suppress(OSError):  # no /proc
                self._count(begun)
            self._exclude(self._limit.excluded(begun))
            self._report(begun)
            now = self._now()
            self._next_at = now + _PAUSE * (now - begun)
            return bool(self._listeners)
        finally:
            self._lock.release()

    def ban(self, address: str) -> None:
        """End all connections of an address (`source_of`) and exclude it. May wait for a look."""
        with self._lock:
            now = self._now()
            if not self._limit.ban(address, now):
                return
            with suppress(OSError):  # no /proc
                self._count(now)  # what came since the last look
            ended = [fd for fd, known in self._known.items() if known.address == address]
            for fd in ended:
                self._shut_down(fd, self._known[fd].inode)
            self._exclude(self._limit.excluded(now))
            self._free_at = now + _FREE_SECONDS
            if now >= self._bans_from + _REPORT_SECONDS:
                self._bans_said, self._bans_from = 0, now
            self._bans_said += 1
            if self._bans_said > _MAX_REPORTED:
                return
        _log.warning(
            "refused: connections reason=%s peer=%s count=%d port=%d",
            _BAN_REASON, address, len(ended), self._port,
        )  # fmt: skip

    def _shut_down(self, fd: int, inode: int) -> None:
        found = self._opened(fd, inode)
        if found is not None:
            with found, suppress(OSError):  # the peer was faster
                found.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while self.look():
            if self._now() >= self._free_at:
                self._free_at = float("inf")
                give_memory_back()
            time.sleep(_LOOK_SECONDS)  # noqa: TID251 - a separate thread

    def _count(self, now: float) -> None:
        found: dict[int, int] = {}
        for name in os.listdir(_OWN_FILES):  # noqa: PTH208 - numbers, and often
            with suppress(OSError):
                status = os.fstat(int(name))
                if stat.S_ISSOCK(status.st_mode):
                    found[int(name)] = status.st_ino
        for fd, known in tuple(self._known.items()):
            if found.get(fd) != known.inode:
                self._forget(fd, known)
        for fd, inode in found.items():
            if fd not in self._known:
                self._look_at(fd, inode, now)

    def _forget(self, fd: int, known: _Known) -> None:
        del self._known[fd]
        self._listeners.pop(fd, None)
        if known.address:
            self._limit.closed(known.address)

    def _look_at(self, fd: int, inode: int, now: float) -> None:
        found = self._opened(fd, inode)
        if found is None:
            return
        with found, suppress(OSError):
            if found.family not in {socket.AF_INET, socket.AF_INET6}:
                self._known[fd] = _Known(inode, "")
                return
            is_ours = found.getsockname()[1] == self._port
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                self._known[fd] = _Known(inode, "")
                if is_ours:
                    self._listeners[fd] = inode
                    self._attach(found, self._excluded)
                return
            # Fails for one that is not connected yet, or no more: it is looked at again.
            host = str(found.getpeername()[0])
            address = source_of(host) if is_ours else ""
            self._known[fd] = _Known(inode, address)
            if not address:
                return
            if not self._limit.opened(address, now):
                found.shutdown(socket.SHUT_RDWR)

    def _opened(self, fd: int, inode: int) -> socket.socket | None:
        """Return another descriptor of a socket, None if the number is another one's by now."""
        try:
            number = os.dup(fd)
        except OSError:
            return None
        try:
            if os.fstat(number).st_ino == inode:
                return socket.socket(fileno=number)
        except OSError:
            pass
        os.close(number)
        return None

    def _exclude(self, addresses: frozenset[str]) -> None:
        if addresses == self._excluded:
            return
        self._excluded = addresses
        for fd, inode in self._listeners.items():
            listener = self._opened(fd, inode)
            if listener is not None:
                with listener:
                    self._attach(listener, addresses)

    def _attach(self, listener: socket.socket, addresses: frozenset[str]) -> None:
        """Let the kernel drop packets of these addresses to a listening socket."""
        if not self._can_filter:
            return
        try:
            if addresses:
                program = drop_program(sorted(addresses)[:_MAX_EXCLUDED])
                buffer = ctypes.create_string_buffer(program)
                count = len(program) // _INSTRUCTION.size
                value = _PROGRAM.pack(count, ctypes.addressof(buffer))
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, value)
            else:
                with suppress(OSError):  # there is none
                    listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        except OSError as error:
            self._can_filter = False
            _log.warning("connections of a flood cost a handshake: no socket filter: %s", error)

    def _report(self, now: float) -> None:
        if now < self._report_at:
            return
        refused = self._limit.take_refused()
        if not refused:
            return
        self._report_at = now + _REPORT_SECONDS
        for one in refused[:_MAX_REPORTED]:
            _log.warning(
                "refused: connections reason=%s peer=%s count=%d open=%d limit=%d port=%d",
                REASON, one.address, one.refused, one.open, self._limit.most, self._port,
            )  # fmt: skip
        if others := refused[_MAX_REPORTED:]:
            count = sum(one.refused for one in others)
            _log.warning(
                "refused: connections reason=%s peers=%d count=%d", REASON, len(others), count
            )


def give_memory_back() -> None:
    """Return to the kernel what the C library keeps of memory that was freed."""
    # glibc only: it keeps all that lies below one piece in use.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def drop_program(addresses: Iterable[str]) -> bytes:
    """Return a socket filter (classic BPF) that drops packets from addresses, see `source_of`."""
    networks = [ip_network(address) for address in addresses]
    old = [int(n.network_address) for n in networks if n.version == _IPV4]
    new = [int(n.network_address) >> 64 for n in networks if n.version != _IPV4]
    # An IPv4 header has the source in its bytes 12 to 15, an IPv6 header from byte 8 on.
    v4 = [_load(12)]
    for word in old:
        v4 += [_if_equal(word, otherwise=1), _end(_DROP)]
    v4.append(_end(_PASS))
    v6: list[bytes] = []
    for words in new:
        v6 += [
            _load(8), _if_equal(words >> 32, otherwise=3),
            _load(12), _if_equal(words & 0xFFFF_FFFF, otherwise=1), _end(_DROP),
        ]  # fmt: skip
    v6.append(_end(_PASS))
    head = [
        _INSTRUCTION.pack(_LOAD_BYTE, 0, 0, _NETWORK_HEADER),
        _INSTRUCTION.pack(_AND, 0, 0, 0xF0),
        _if_equal(0x40, otherwise=1),
        _INSTRUCTION.pack(_JUMP, 0, 0, 3),  # past the rest of the head
        _if_equal(0x60, otherwise=1),
        _INSTRUCTION.pack(_JUMP, 0, 0, 1 + len(v4)),
        _end(_PASS),
    ]
    return b"".join([*head, *v4, *v6])


def _load(at: int) -> bytes:
    return _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _NETWORK_HEADER + at)


def _if_equal(value: int, *, otherwise: int) -> bytes:
    """Go on with the next instruction, or skip `otherwise` of them."""
    return _INSTRUCTION.pack(_IF_EQUAL, 0, otherwise, value)


def _end(what: int) -> bytes:
    return _INSTRUCTION.pack(_RETURN, 0, 0, what)
