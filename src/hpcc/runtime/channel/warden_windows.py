"""How a worker on Windows starts wardens: one process for each guest, by the agent's own stub.

Windows has no fork and no system call filter that a program could install. It has tokens without
privileges, without administrator groups and without the right to write to anything above low
integrity, and jobs that end with the process that holds them. See
docs/adr/0038-warden-on-windows.md. Run under Wine, not yet on Windows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Final

import hpcc
from hpcc.ports import GuestLostError
from hpcc.runtime.channel.warden_link import WARDEN_DIED, OnEnd, OnPid
from hpcc.runtime.host.guest_programs import guest_program

_PROGRAM: Final = Path(hpcc.__file__).parent / "warden" / "__main__.py"
_STUB: Final = guest_program("hpcc-agent.exe")
_MEMORY_BYTES: Final = 512 << 20
# In a virtual environment python.exe is a launcher that starts a second process.
_MAX_PROCESSES: Final = 2
_KEPT_VARIABLES: Final = ("SYSTEMROOT", "SYSTEMDRIVE")


def warden_label() -> str:
    """Return the label of audit rows: the worker's user, but without its right to write."""
    return "low-integrity"


def warden_argv(stub: Path, python: str, program: Path) -> list[str]:
    """Return the command line that starts a warden."""
    return [
        str(stub), "run", "--restricted", "low", "--memory", str(_MEMORY_BYTES),
        "--processes", str(_MAX_PROCESSES), "--", python, "-I", "-B", str(program),
    ]  # fmt: skip


if sys.platform == "win32":
    import ctypes
    import msvcrt
    import struct
    import subprocess
    import threading
    from asyncio.windows_utils import PipeHandle, pipe
    from contextlib import suppress

    from hpcc.wire.warden_share import WARDEN_PID_BYTES, decode_warden_pid, encode_warden_share

    # winnt.h: PROCESS_QUERY_LIMITED_INFORMATION, JobObjectExtendedLimitInformation with its size on
    # 64 bits and where its flags are, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE.
    _QUERY_LIMITED = 0x1000
    _EXTENDED_LIMITS, _EXTENDED_LIMIT_BYTES, _FLAGS_AT = 9, 144, 16
    _KILL_ON_JOB_CLOSE = 0x2000
    _TICK_SECONDS = 1e-7

    class WindowsWardens:
        """Starts wardens. The default programs are those of the installed wheel."""

        def __init__(self, stub: Path = _STUB, program: Path = _PROGRAM) -> None:
            self._stub, self._program = stub, program

        def launch(self, guest: socket.socket) -> _Ends:
            """Start a warden for a guest's stream. `guest` stays the caller's to close.

            Raises:
                GuestLostError: the warden could not be started.
            """
            try:
                ours, theirs = pipe(duplex=True, overlapped=(True, True))
                own = PipeHandle(ours)
                fd = msvcrt.open_osfhandle(theirs, os.O_RDWR)
                try:
                    process = subprocess.Popen(
                        warden_argv(self._stub, sys.executable, self._program),
                        stdin=fd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                        env={n: v for n, v in os.environ.items() if n.upper() in _KEPT_VARIABLES},
                        creationflags=subprocess.CREATE_NO_WINDOW,
                    )  # fmt: skip
                    job = _end_with_us(process)
                except BaseException:
                    own.close()
                    raise
                finally:
                    os.close(fd)
            except OSError as error:
                raise GuestLostError(
                    f"no warden could be started: {error}", reason=WARDEN_DIED
                ) from error
            return _Ends(own, process, job, guest.dup())

    def _end_with_us(process: subprocess.Popen[bytes]) -> int:
        """Return a job that ends the warden's parent, and so the warden, when this process ends.

        Raises:
            OSError: the job cannot be made; the process is ended.
        """
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        job = kernel.CreateJobObjectW(None, None)
        limits = bytearray(_EXTENDED_LIMIT_BYTES)
        struct.pack_into("<I", limits, _FLAGS_AT, _KILL_ON_JOB_CLOSE)
        room = (ctypes.c_char * len(limits)).from_buffer(limits)
        is_good = (
            job
            and kernel.SetInformationJobObject(
                ctypes.c_void_p(job), _EXTENDED_LIMITS, room, len(limits)
            )
            and kernel.AssignProcessToJobObject(
                ctypes.c_void_p(job),
                ctypes.c_void_p(int(process._handle)),  # noqa: SLF001 - no public way
            )
        )
        if not is_good:
            error = ctypes.WinError(ctypes.get_last_error())
            process.kill()
            raise error
        return int(job)

    class _Ends:
        """See `WardenLink`. `guest` stays open until the warden has it and `close` is called."""

        def __init__(
            self, own: PipeHandle, process: subprocess.Popen[bytes], job: int, guest: socket.socket
        ) -> None:
            self._pipe, self._process, self._job, self._guest = own, process, job, guest
            self._transport: asyncio.WriteTransport | None = None
            self._on_pid: OnPid | None = None
            self._pid = 0

        def watch(self, on_pid: OnPid, on_end: OnEnd) -> None:
            self._on_pid = on_pid
            loop = asyncio.get_running_loop()

            def wait() -> None:
                status = self._process.wait()
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(on_end, f"{WARDEN_DIED}: status {status}")

            threading.Thread(target=wait, name="warden", daemon=True).start()

        async def open(self, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=limit)
            protocol = asyncio.StreamReaderProtocol(reader)
            # As create_pipe_connection does with a pipe that it opened by name.
            transport = loop._make_duplex_pipe_transport(  # noqa: SLF001 - no public way
                self._pipe, protocol
            )
            self._transport = transport
            self._pid = decode_warden_pid(await reader.readexactly(WARDEN_PID_BYTES))
            if self._on_pid is not None:
                self._on_pid(self._pid)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            writer.write(encode_warden_share(self._guest.share(self._pid)))
            return reader, writer

        def cpu_seconds(self) -> float:
            kernel = ctypes.WinDLL("kernel32")
            kernel.OpenProcess.restype = ctypes.c_void_p
            handle = ctypes.c_void_p(kernel.OpenProcess(_QUERY_LIMITED, 0, self._pid))
            if not self._pid or not handle.value:
                return 0.0
            # Creation, exit, kernel, user: FILETIMEs in units of 100 ns.
            times = [ctypes.c_uint64() for _ in range(4)]
            try:
                if not kernel.GetProcessTimes(handle, *map(ctypes.byref, times)):
                    return 0.0
            finally:
                kernel.CloseHandle(handle)
            return (times[2].value + times[3].value) * _TICK_SECONDS

        def close(self) -> None:
            # The last handle of the parent's job. When the job ends, so does the warden's own.
            job, self._job = self._job, 0
            if job:
                ctypes.WinDLL("kernel32").CloseHandle(ctypes.c_void_p(job))
            if self._transport is not None:
                self._transport.abort()
            else:
                self._pipe.close()
            self._guest.close()
