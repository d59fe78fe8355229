"""Guests as QEMU microVMs, under KVM or emulated (TCG)."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc._proto import agent_pb2 as pb
from hpcc.core import ExecEvent, ExecLimits, ExecRequest, ImageDigest, Isolation, ResultEvent
from hpcc.ports import (
    BlobSource,
    Clock,
    GuestBootError,
    GuestIdentity,
    GuestLostError,
    GuestSpec,
    Probe,
)
from hpcc.runtime._assets import GuestAssets
from hpcc.runtime._channel import GuestChannel
from hpcc.runtime._leftovers import new_directory, record
from hpcc.runtime._qemu_argv import Accelerator, Machine, qemu_argv, tsc_khz
from hpcc.runtime._tools import sha256_of
from hpcc.wire import ENTROPY_BYTES, TOKEN_BYTES

PROGRAM: Final = "qemu-system-x86_64"
_CONSOLE_BYTES: Final = 64 << 10
_LAST_WORDS_SECONDS: Final = 2.0
_CONSOLE_TAIL_CHARS: Final = 1500
_END_SECONDS: Final = 10.0
_BOOT_TRIES: Final = 2
# VMM users when started by root: outside what any distribution or systemd allots.
_FIRST_UID: Final = 1_870_000_000
_UIDS_FOR_EACH_WORKER: Final = 64
_MAX_PIDS: Final = 32_768
_NOBODY: Final = 65_534
_SELF_TEST: Final = "hpcc-self-test"


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuConfig:
    """How VMs are run. `directory` is for guests' working directories, 0700."""

    accelerator: Accelerator
    directory: Path
    program: str = PROGRAM
    # Added to the kernel's command line: tests only, to make a guest that never boots.
    extra_kernel_options: str = ""


class _NoBlobs:
    async def read(self, digest: object) -> bytes:
        raise GuestLostError(f"the self-test has no input {digest}")


class QemuGuest:
    """`hpcc.ports.Guest` over one VM."""

    def __init__(self, identity: GuestIdentity, channel: GuestChannel, vmm_pid: int) -> None:
        self.identity, self.vmm_pid = identity, vmm_pid
        self._channel = channel

    @property
    def lost(self) -> asyncio.Future[str]:
        return self._channel.lost

    @property
    def is_lost(self) -> bool:
        return self._channel.lost.done()

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`."""
        events = self._channel.exec(request, blobs)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()


class QemuRuntime:
    """One VM for each guest; the VMM confined as far as its starter may."""

    def __init__(self, config: QemuConfig, assets: GuestAssets, clock: Clock) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._count = 0
        self._vmm_digest = ""

    @property
    def isolation(self) -> Isolation:
        return Isolation.QEMU_KVM if self._config.accelerator == "kvm" else Isolation.QEMU_TCG

    async def probe(self) -> Probe:
        """Boot a guest from the agent drive alone, to its agent's answer."""
        program = shutil.which(self._config.program)
        if program is None:
            return Probe(
                is_usable=False, isolation=self.isolation,
                summary=f"{self._config.program} is not installed",
                remedy="apt-get install qemu-system-x86",
            )  # fmt: skip
        try:
            async with self._machine(_probe_spec(self._assets, self._config.accelerator)):
                pass
        except GuestBootError as error:
            lines = str(error).splitlines() or [""]
            return Probe(
                is_usable=False,
                isolation=self.isolation,
                summary=lines[0],
                details=tuple(lines[1:]),
            )
        return Probe(
            is_usable=True, isolation=self.isolation, summary=f"a guest answered ({self.isolation})"
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[QemuGuest]:
        """Boot a guest, trying twice; see `hpcc.ports.Runtime.guest`."""
        for attempt in range(1, _BOOT_TRIES + 1):
            machine = self._machine(spec)
            try:
                guest = await machine.__aenter__()
            except GuestBootError:
                if attempt == _BOOT_TRIES:
                    raise
                continue
            try:
                yield guest
            finally:
                await machine.__aexit__(None, None, None)
            return

    @asynccontextmanager
    async def _machine(self, spec: GuestSpec) -> AsyncIterator[QemuGuest]:
        self._count += 1
        if not self._vmm_digest:
            self._vmm_digest = await asyncio.to_thread(_program_digest, self._config.program)
        vm = _Vm(self._config, self._assets, spec, self._count)
        try:
            try:
                async with asyncio.timeout(spec.boot_timeout_seconds):
                    guest = await self._boot(vm)
            except TimeoutError as error:
                seconds = f"{spec.boot_timeout_seconds:.0f} s"
                raise vm.boot_error(f"no answer from the guest's agent in {seconds}") from error
            except (GuestLostError, OSError) as error:
                # The stream's end is often seen before what the VMM said when it died.
                await vm.hear_out()
                raise vm.boot_error(str(error)) from error
            yield guest
        finally:
            await vm.end()

    async def _boot(self, vm: _Vm) -> QemuGuest:
        channel = await vm.start()
        await channel.connect()
        identity = GuestIdentity(
            guest_id=f"q-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest=self._assets.kernel_digest,
            vmm_digest=self._vmm_digest,
            agent_digest=self._assets.agent_digest,
        )
        birth = pb.Guest(
            guest_id=identity.guest_id,
            wall_time_ns=int(self._clock.now() * 1e9),
            entropy=secrets.token_bytes(ENTROPY_BYTES),
        )
        # Proves the whole path, sandbox included, before any tenant's byte: the image need not
        # hold any program for an exec of one that is not there.
        request = ExecRequest(
            exec_id=_SELF_TEST, argv=(f"/{_SELF_TEST}",), env=(), cwd="", inputs=(), outputs=(),
            limits=ExecLimits(wall_seconds=60.0, memory_bytes=64 << 20),
        )  # fmt: skip
        async for event in channel.exec(request, _NoBlobs(), birth):
            if isinstance(event, ResultEvent) and event.reason != "no-such-program":
                raise GuestLostError(
                    f"self-test: {event.reason or 'it ran'}: {channel.last_detail}"
                )
        return QemuGuest(identity, channel, vm.pid)


class _Vm:
    """One QEMU process with everything that belongs to it. `end` undoes `start`, however far."""

    def __init__(
        self, config: QemuConfig, assets: GuestAssets, spec: GuestSpec, number: int
    ) -> None:
        self._config, self._assets, self._spec = config, assets, spec
        self._user = _vmm_user(number)
        self._console = bytearray()
        self._errors = bytearray()
        self._directory: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._channel: GuestChannel | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> GuestChannel:
        """Start QEMU; returns the channel to the guest, not connected yet."""
        loop = asyncio.get_running_loop()
        self._directory = await asyncio.to_thread(new_directory, self._config.directory)
        token = secrets.token_hex(TOKEN_BYTES // 2)
        host_end, vmm_end = socket.socketpair()
        self._channel = GuestChannel(host_end, token.encode())
        with ExitStack() as stack:
            stack.enter_context(vmm_end)
            machine = self._open_files(stack, vmm_end.fileno(), token)
            self._process = await self._spawn(machine)
        await asyncio.to_thread(record, self._directory, [os.getpid(), self.pid])
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._tasks = [
            loop.create_task(_keep_tail(self._process.stdout, self._console)),
            loop.create_task(_keep_tail(self._process.stderr, self._errors)),
            loop.create_task(self._watch(self._process, self._channel)),
        ]
        # A guest that broke the protocol is ended at once, not when its last user lets go.
        self._channel.lost.add_done_callback(lambda _: self._kill())
        return self._channel

    def _open_files(self, stack: ExitStack, port_fd: int, token: str) -> Machine:
        def opened(path: Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        cpuinfo = Path("/proc/cpuinfo").read_text()
        return Machine(
            name=str(self._directory),
            accelerator=self._config.accelerator,
            memory_mib=self._spec.memory_mib,
            vcpus=self._spec.vcpus,
            kernel_fd=opened(self._assets.kernel),
            initramfs_fd=opened(self._assets.initramfs),
            image_fd=opened(self._spec.image_path),
            drive_fd=opened(self._assets.agent_drive),
            port_fd=port_fd,
            firmware=str(self._assets.firmware or ""),
            token=token,
            extra_options=self._config.extra_kernel_options,
            tsc_khz=tsc_khz(cpuinfo),
        )

    async def _spawn(self, machine: Machine) -> asyncio.subprocess.Process:
        fds = (
            machine.kernel_fd, machine.initramfs_fd, machine.image_fd, machine.drive_fd,
            machine.port_fd,
        )  # fmt: skip
        # prlimit and setpriv are util-linux: limits, and death with the worker whatever kills it.
        confined = [
            "prlimit",
            "--core=0",
            "--fsize=0",
            "--nofile=256",
            "setpriv",
            "--pdeathsig=KILL",
        ]
        return await asyncio.create_subprocess_exec(
            *confined, *qemu_argv(self._config.program, machine),
            pass_fds=fds, cwd=self._directory, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            **self._user.options(),  # type: ignore[arg-type]  # a TypedDict would have to list them all
        )  # fmt: skip

    async def _watch(self, process: asyncio.subprocess.Process, channel: GuestChannel) -> None:
        status = await process.wait()
        channel.retire(f"the VM ended with status {status}")

    def boot_error(self, cause: str) -> GuestBootError:
        """Return an error that tells what console and VMM said last."""
        said = [
            text.decode("utf-8", "replace").strip()[-_CONSOLE_TAIL_CHARS:]
            for text in (self._errors, self._console)
        ]
        printable = ["".join(c if c.isprintable() or c == "\n" else "?" for c in t) for t in said]
        return GuestBootError("\n".join(["guest did not boot: " + cause, *filter(None, printable)]))

    async def hear_out(self) -> None:
        """End the VM and read what it had still to say; bounded."""
        self._kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_SECONDS)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def end(self) -> None:
        """Kill the VM and leave nothing behind; also after a cancel."""
        # What counts is done before the first await, so that a second cancel cannot prevent it.
        self._kill()
        if self._channel is not None:
            self._channel.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._tasks:
            # The process is dead, so they end by themselves.
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)
            for task in self._tasks:
                task.cancel()
        if self._process is not None:
            await self._process.wait()


async def _keep_tail(stream: asyncio.StreamReader, tail: bytearray) -> None:
    """Read to the end and keep the last bytes: a guest may flood its console for ever."""
    while data := await stream.read(_CONSOLE_BYTES):
        tail += data
        del tail[:-_CONSOLE_BYTES]


@dataclass(frozen=True, slots=True)
class _VmmUser:
    """Who runs the VMM: an own uid when started by root, else the same user."""

    uid: int | None
    groups: tuple[int, ...]

    def options(self) -> dict[str, object]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": list(self.groups)}


def _vmm_user(number: int) -> _VmmUser:
    if os.geteuid() != 0:
        return _VmmUser(None, ())
    slot = (os.getpid() % _MAX_PIDS) * _UIDS_FOR_EACH_WORKER + number % _UIDS_FOR_EACH_WORKER
    uid = _FIRST_UID + slot
    groups: tuple[int, ...] = ()
    with suppress(OSError):
        status = Path("/dev/kvm").stat()
        if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP and status.st_gid:
            groups = (status.st_gid,)
    return _VmmUser(uid if _is_mapped(uid) else _NOBODY, groups)


def _is_mapped(uid: int) -> bool:
    """Say whether this user namespace has the uid (a rootless container's may not)."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        ranges = [[int(word) for word in line.split()] for line in lines]
    except (OSError, ValueError):
        return False
    return any(first <= uid < first + count for first, _, count in ranges)


def _program_digest(program: str) -> str:
    path = shutil.which(program)
    return sha256_of(Path(path)) if path else ""


def _probe_spec(assets: GuestAssets, accelerator: Accelerator) -> GuestSpec:
    return GuestSpec(
        image=ImageDigest(assets.agent_digest),
        image_path=assets.agent_drive,
        memory_mib=256,
        boot_timeout_seconds=15.0 if accelerator == "kvm" else 90.0,
    )
