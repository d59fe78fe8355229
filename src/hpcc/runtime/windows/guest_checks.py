"""Checks of the Windows self-test that need a running guest, which the real runtime boots."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcc.core import ExecLimits, ExecRequest, HpccError, ImageDigest, ResultEvent
from hpcc.ports import Clock, Guest, GuestLostError, GuestSpec
from hpcc.runtime.containerd.client import Connect
from hpcc.runtime.containerd.exec_channel import NewStreams
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.windows.hcs import ComputeService, load_computecore
from hpcc.runtime.windows.host import WindowsBackend, WindowsHost, WindowsRuntimeConfig, host_build
from hpcc.runtime.windows.hvsocket import RETRIED, Address, dial
from hpcc.runtime.windows.hyperv import Dial, HyperVRuntime
from hpcc.runtime.windows.layers.layer import read_windows_layer
from hpcc.runtime.windows.pipes import load_pipe_calls, windows_streams
from hpcc.runtime.windows.process import WindowsProcessRuntime
from hpcc.runtime.windows.runtime import WindowsRuntime
from hpcc.runtime.windows.selftest_run import new_directory, run_program

_BOOT_SECONDS: Final = 150.0
_LOST_SECONDS: Final = 60.0
_STATUS: Final = 7
_MEMORY_MIB: Final = 1024
# Prints "connected" or the number of the error. The last words of its output count.
_DIAL: Final = """import socket, sys
dialled = socket.socket(socket.AF_HYPERV, socket.SOCK_STREAM, socket.HV_PROTOCOL_RAW)
dialled.setsockopt(socket.HV_PROTOCOL_RAW, socket.HVSOCKET_CONNECT_TIMEOUT, 2000)
try:
    dialled.connect((sys.argv[1], sys.argv[2]))
except OSError as error:
    print("refused", error.winerror or error.errno)
else:
    print("connected", 0)
"""
# WSAEACCES
_NO_RIGHTS: Final = ["refused", "10013"]
_DIALS: Final = 30
_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestChecks:
    """What the guests boot from: an image in containerd, and the agent's layer."""

    image: ImageDigest
    layer: Path
    connect: Connect
    clock: Clock
    snapshotter: str = "windows"
    build: Callable[[], int] = host_build
    compute: Callable[[], ComputeService] = lambda: ComputeService(load_computecore())
    dial: Dial = dial
    streams: Callable[[], NewStreams] = lambda: windows_streams(load_pipe_calls())

    async def address(self) -> str:
        """Boot a guest in Hyper-V isolation and report the address at which it answered."""
        async with self._guest("hyperv") as guest:
            said = guest.identity.vmm_version
        if "dialled=utility-vm" in said:
            raise GuestCheckError(f"nothing answered at the container's own address ({said})")
        return f"one answered at its container's own address ({said})"

    async def answer(self) -> str:
        """Boot a guest: its agent binds its socket and runs an event loop without a network."""
        async with self._guest("hyperv") as guest:
            return f"the agent of {guest.identity.guest_id} answered, without a network interface"

    async def start(self) -> str:
        """Boot a guest and measure the time."""
        began = self.clock.monotonic()
        async with self._guest("hyperv"):
            seconds = self.clock.monotonic() - began
        return f"a guest of {_MEMORY_MIB} MiB answered after {seconds:.1f} s"

    async def process(self) -> str:
        """Run one program in process isolation; its exit status must come back."""
        async with self._guest("process") as guest:
            status = await _status(guest)
        if status != _STATUS:
            raise GuestCheckError(f"status {status}, not {_STATUS}")
        return f"a program ran and its status came back ({guest.identity.vmm_version})"

    async def loss(self) -> str:
        """End a guest's utility VM: the end must be noticed, and nothing may be left."""
        async with self._guest("hyperv") as guest:
            await self.compute().terminate(guest.identity.guest_id)
            try:
                async with asyncio.timeout(_LOST_SECONDS):
                    reason = await guest.lost
            except TimeoutError:
                raise GuestCheckError(
                    f"the loss was not noticed in {_LOST_SECONDS:.0f} s"
                ) from None
            with suppress(GuestLostError):
                await _status(guest)
                raise GuestCheckError("a program ran in a guest that was lost")
        return f"noticed: {reason}"

    async def rights(self, stub: Sequence[str], pause_seconds: float = _PAUSE_SECONDS) -> str:
        """Dial a guest's agent without administrator's rights, before the worker dials it."""

        async def dial(address: Address, *, timeout_seconds: float) -> socket.socket:
            said = await _dial_without_rights(stub, address, pause_seconds)
            if said != _NO_RIGHTS:
                raise GuestCheckError(f"a program without rights saw: {' '.join(said)}")
            return await self.dial(address, timeout_seconds=timeout_seconds)

        async with replace(self, dial=dial)._guest("hyperv"):  # noqa: SLF001 - of this class
            return "a dial without rights was refused, and the worker's was not"

    @asynccontextmanager
    async def _guest(self, backend: WindowsBackend) -> AsyncIterator[Guest]:
        layer = await in_thread(lambda: read_windows_layer(self.layer))
        config = WindowsRuntimeConfig(
            worker=f"self-test-{secrets.token_hex(4)}",
            boot=secrets.token_hex(8),
            connect=self.connect,
            layer=layer,
            build=self.build(),
            is_hyperv=backend == "hyperv",
            snapshotter=self.snapshotter,
        )
        spec = GuestSpec(
            image=self.image, image_path=Path(), memory_mib=_MEMORY_MIB,
            boot_timeout_seconds=_BOOT_SECONDS,
        )  # fmt: skip
        async with self._runtime(backend, config).guest(spec) as guest:
            yield guest

    def _runtime(self, backend: WindowsBackend, config: WindowsRuntimeConfig) -> WindowsRuntime:
        host = WindowsHost(config, self.clock)
        if backend == "hyperv":
            return HyperVRuntime(host, self.clock, dial=self.dial, compute=self.compute)
        return WindowsProcessRuntime(host, self.clock, self.streams())


class GuestCheckError(HpccError):
    """A check found something else than it expects."""

    default_reason = "self-test"


class _NoBlobs:
    async def read(self, digest: object) -> bytes:
        raise GuestCheckError(f"no input was named, and {digest} is asked for")


async def _status(guest: Guest) -> int:
    request = ExecRequest(
        exec_id="self-test", argv=(r"C:\Windows\System32\cmd.exe", "/d", "/c", f"exit {_STATUS}"),
        env=(), cwd="", inputs=(), outputs=(),
        limits=ExecLimits(wall_seconds=60.0, memory_bytes=256 << 20),
    )  # fmt: skip
    status = -1
    async for event in guest.exec(request, _NoBlobs()):
        if isinstance(event, ResultEvent):
            status = event.exit_code
    return status


async def _dial_without_rights(
    stub: Sequence[str], address: Address, pause_seconds: float
) -> list[str]:
    """Return what a program without rights saw at an address, once the guest has begun to boot."""
    argv = [*stub, "run", "--restricted", "medium", "--", sys.executable, "-I", "-c", _DIAL]
    retried = [["refused", str(code)] for code in RETRIED]
    said: list[str] = []
    with new_directory() as name:
        for _ in range(_DIALS):
            _, out = await run_program([*argv, *address], Path(name))
            said = out.split()[-2:]
            if said not in retried:
                break
            await asyncio.sleep(pause_seconds)
    return said
