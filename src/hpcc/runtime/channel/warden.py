"""How a worker starts wardens on Linux: one zygote for the process, one warden for each guest.

The zygote starts with the first guest, and again if it has died. It ends with the worker. All
wardens end with their zygote.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import hpcc
from hpcc.core import IntegrityError
from hpcc.ports import GuestLostError
from hpcc.runtime.channel.warden_link import WARDEN_CPU, WARDEN_DIED, WARDEN_SECCOMP, OnEnd, OnPid
from hpcc.runtime.host.users import warden_maps, warden_user
from hpcc.wire import warden as wire
from hpcc.wire.link import TOKEN_BYTES

_OF_SIGNAL: Final[Mapping[int, str]] = {signal.SIGSYS: WARDEN_SECCOMP, signal.SIGXCPU: WARDEN_CPU}
_PROGRAM: Final = Path(hpcc.__file__).parent / "warden" / "__main__.py"
_ZYGOTE_FD: Final = 3
_TRIAL_SECONDS: Final = 20.0
_KEEPALIVE_MS: Final = 60_000
_FATE_BYTES: Final = 64


class WardenEnds:
    """The worker's two ends of a warden, both non-blocking; see `WardenLink`.

    `stream` carries frames. `line` (SOCK_SEQPACKET) brings the warden's pid and later its wait
    status. Closing `line` ends the warden.
    """

    def __init__(self, stream: socket.socket, line: socket.socket) -> None:
        self.stream, self.line = stream, line
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._has_pid = False

    def watch(self, on_pid: OnPid, on_end: OnEnd) -> None:
        """Report the warden's pid and later its end; see `WardenLink.watch`."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.line, self._hear, self._loop, on_pid, on_end)

    def _hear(self, loop: asyncio.AbstractEventLoop, on_pid: OnPid, on_end: OnEnd) -> None:
        """Read the zygote's report: first the warden's pid, later its wait status."""
        try:
            packet = self.line.recv(_FATE_BYTES)
            if packet and not self._has_pid:
                self._has_pid, self._pid = True, wire.decode_fate(packet)
                on_pid(self._pid)
                return
            status = wire.decode_fate(packet) if packet else None
        except BlockingIOError:
            return
        except (OSError, IntegrityError):
            status = None
        loop.remove_reader(self.line)
        self._loop = None
        on_end(_fate_text(status))

    async def open(self, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return reader and writer of `stream`; see `WardenLink.open`."""
        return await asyncio.open_connection(sock=self.stream, limit=limit)

    def cpu_seconds(self) -> float:
        """Return the warden's processor time in seconds."""
        return cpu_seconds(self._pid)

    def close(self) -> None:
        """End the warden; idempotent."""
        if self._loop is not None:
            self._loop.remove_reader(self.line)
            self._loop = None
        self.stream.close()
        self.line.close()


def _fate_text(status: int | None) -> str:
    if status is None:
        return f"{WARDEN_DIED}: its zygote ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"{_OF_SIGNAL.get(number, WARDEN_DIED)}: signal {number}"
    return f"{WARDEN_DIED}: status {os.waitstatus_to_exitcode(status)}"


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process in seconds; 0 if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # Fields 14 and 15 of proc(5). The name may hold blanks, so count from its end.
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Zygote:
    """The process that wardens are forked from. `program` is run by this interpreter."""

    def __init__(self, program: Path = _PROGRAM) -> None:
        self._program = program
        self._control: socket.socket | None = None
        self._pid = 0
        self._owner = 0
        self._count = 0

    @property
    def pid(self) -> int:
        """The zygote's process id; 0 while there is no zygote."""
        return self._pid

    def launch(self, guest: socket.socket) -> WardenEnds:
        """Fork a warden for a guest's stream. `guest` stays the caller's to close.

        This returns before the warden runs. If the fork fails later, `line` hangs up.

        Raises:
            GuestLostError: no zygote could be started, or its queue is full.
            OSError: there are no descriptors left.
        """
        self._count += 1
        request = wire.encode_spawn(warden_user(self._count))
        stream, warden_stream = socket.socketpair()
        line, zygote_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends = WardenEnds(stream, line)
        stream.settimeout(0)
        line.settimeout(0)
        try:
            with warden_stream, zygote_line:
                fds = [guest.fileno(), warden_stream.fileno(), zygote_line.fileno()]
                self._ask(request, fds)
        except BaseException:
            ends.close()
            raise
        return ends

    def _ask(self, request: bytes, fds: list[int]) -> None:
        try:
            try:
                self._send(request, fds)
            except ConnectionError:
                # The zygote has died, and its wardens with it.
                self.close()
                self._send(request, fds)
        except OSError as error:
            # No descriptor, process or buffer is left. The other wardens can go on.
            raise GuestLostError(
                f"no warden could be started: {error}", reason=WARDEN_DIED
            ) from error

    def _send(self, request: bytes, fds: list[int]) -> None:
        control = self._control or self._start()
        socket.send_fds(control, [request], fds, socket.MSG_NOSIGNAL)

    def _start(self) -> socket.socket:
        control, zygote_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._owner = os.getpid()
        maps = warden_maps()
        helper = [maps.socket, maps.request.hex()] if maps else []
        with zygote_end:
            # Isolated, with an empty environment, in a new session: Ctrl-C goes to the worker only.
            self._pid = os.posix_spawn(
                sys.executable,
                [
                    sys.executable, "-I", str(self._program), str(_ZYGOTE_FD), str(os.getpid()),
                    *helper,
                ],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, zygote_end.fileno(), _ZYGOTE_FD),
                ],
                setsid=True,
            )  # fmt: skip
        control.settimeout(0)
        self._control = control
        return control

    def close(self) -> None:
        """End the zygote and with it every warden."""
        if self._control is not None:
            self._control.close()
            self._control = None
        # A process that was forked from the worker must not end the worker's zygote.
        if self._pid and self._owner == os.getpid():
            # It would also end because its connection closes, but perhaps not soon.
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0


@cache
def process_zygote() -> Zygote:
    """Return this process's only zygote; it is closed at exit."""
    zygote = Zygote()
    atexit.register(zygote.close)
    return zygote


def launch_warden(guest: socket.socket) -> WardenEnds:
    """Start a guest's warden from this process's zygote; see `Zygote.launch`."""
    return process_zygote().launch(guest)


def warden_trouble(zygote: Zygote, timeout_seconds: float = _TRIAL_SECONDS) -> str:
    """Start a warden without a guest and return why it does not work; "" if it does. Blocks.

    `timeout_seconds` bounds each wait.
    """
    guest, guest_end = socket.socketpair()
    with guest, guest_end:
        try:
            ends = zygote.launch(guest)
        except GuestLostError as error:
            return str(error)
        with ends.stream as stream, ends.line as line:
            stream.settimeout(timeout_seconds)
            line.settimeout(timeout_seconds)
            start = wire.Start(bytes(TOKEN_BYTES), _KEEPALIVE_MS, _KEEPALIVE_MS)
            try:
                stream.sendall(wire.frame(wire.START, 0, wire.encode_start(start)))
                stream.sendall(wire.frame(wire.PING))
                if stream.recv(wire.HEADER_BYTES) == wire.frame(wire.PONG):
                    return ""
                line.recv(_FATE_BYTES)  # its pid
                packet = line.recv(_FATE_BYTES)
            except OSError as error:
                return f"it does not answer: {error}"
    if not packet:
        return "its zygote ended"
    return f"it ended with status {os.waitstatus_to_exitcode(wire.decode_fate(packet))}"
