"""A `Runtime` without any isolation: compiles run as local processes in a temporary directory.

Use `FakeRuntime` where a worker needs a runtime; set faults in its `FakeFaults`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from hpcc.core import (
    SOURCE_ROOT,
    CallerError,
    ExecEvent,
    ExecRequest,
    Isolation,
    OutputEvent,
    ResultEvent,
    StdioEvent,
    check_guest_path,
)
from hpcc.ports import (
    BlobSource,
    GuestBootError,
    GuestIdentity,
    GuestLostError,
    GuestSpec,
    Probe,
)

_ROOT_IN_TEXT: Final = re.compile(
    # A project may have a directory of that name, too.
    rf"(?<!{re.escape(SOURCE_ROOT)}){re.escape(SOURCE_ROOT)}(?=[/=:]|$)"
)
# What may stand in front of a path: the path begins behind the last of these.
_BEFORE_PATH: Final = re.compile(r"[\s=:,;|&<>()'\"`]")
# An option of clang-cl in front of its value, as in `/Fo/src/a.obj`.
_SLASH_OPTION: Final = re.compile(r"^/(?:F[A-Za-z]|I)")
_CHUNK: Final = 256 * 1024


@dataclass(slots=True)
class FakeFaults:
    """The faults that a test injects; may be changed while guests run.

    `die_in_execs`: the guest dies while it runs the execs with these numbers (0 is its first).
    `boot_error`: "" or the message of the GuestBootError that every boot raises.
    """

    boot_error: str = ""
    die_in_execs: frozenset[int] = frozenset()


class FakeGuest:
    """One fake guest. `kill` acts like a crash of the VM."""

    def __init__(self, guest_id: str, directory: Path, faults: FakeFaults) -> None:
        self._directory, self._faults = directory, faults
        self._execs = 0
        self._known: dict[str, bytes] = {}
        self._processes: set[asyncio.subprocess.Process] = set()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.identity = GuestIdentity(
            guest_id=guest_id,
            isolation=Isolation.LOCAL_NONE,
            kernel_digest="",
            vmm_digest="",
            agent_digest="",
        )

    @property
    def lost(self) -> asyncio.Future[str]:
        return self._lost

    @property
    def is_lost(self) -> bool:
        return self._lost.done()

    def kill(self, reason: str = "killed") -> None:
        """End the guest at once: running compiles raise GuestLostError."""
        if not self._lost.done():
            self._lost.set_result(reason)
        for process in self._processes:
            _kill_group(process)

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`."""
        self._check_alive()
        number, self._execs = self._execs, self._execs + 1
        for path in (
            *(f.path for f in request.inputs),
            *request.outputs,
            *request.output_directories,
            *request.input_directories,
        ):
            check_guest_path(path)
        with tempfile.TemporaryDirectory(dir=self._directory) as name:
            root = Path(name)
            await self._stage(root, request, blobs)
            stdio, result = await self._run(root, request, number)
            self._check_alive()
            for event in stdio:
                yield event
            yield result
            below = (p for d in request.output_directories for p in _below(root, d))
            for path in (*request.outputs, *below):
                for piece in _pieces(root, path):
                    yield piece

    def _check_alive(self) -> None:
        if self._lost.done():
            raise GuestLostError(f"guest {self.identity.guest_id}: {self._lost.result()}")

    async def _stage(self, root: Path, request: ExecRequest, blobs: BlobSource) -> None:
        for file in request.inputs:
            if file.digest.hash not in self._known:
                self._known[file.digest.hash] = await blobs.read(file.digest)
            target = root / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._known[file.digest.hash])
            target.chmod(0o755 if file.is_executable else 0o644)
        for path in request.outputs:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        for path in request.output_directories:
            made = root / path if path not in request.outputs else (root / path).parent
            made.mkdir(parents=True, exist_ok=True)
        for path in (request.cwd, *request.input_directories):
            (root / path).mkdir(parents=True, exist_ok=True)

    def _command(self, root: Path, request: ExecRequest) -> tuple[list[str], dict[str, str]]:
        """Return argv and environment of the local process that runs the program in `root`."""
        argv = [rooted(a, root) for a in request.argv]
        return argv, {k: rooted(v, root) for k, v in request.env}

    async def _run(
        self, root: Path, request: ExecRequest, number: int
    ) -> tuple[list[ExecEvent], ResultEvent]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        argv, env = self._command(root, request)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, cwd=root / request.cwd, env=env, start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except (FileNotFoundError, PermissionError):
            return [], ResultEvent(exit_code=127, reason="no-such-program")
        except ValueError as error:
            raise CallerError("argv or env holds a zero byte") from error
        self._processes.add(process)
        reason, out, err = "", b"", b""
        try:
            if number in self._faults.die_in_execs:
                self.kill("died in mid-compile")
                self._check_alive()
            async with asyncio.timeout(request.limits.wall_seconds):
                out, err = await process.communicate()
        except TimeoutError:
            reason = "deadline"
        finally:
            self._processes.discard(process)
            _kill_group(process)
            # Ends the pipes too, for which wait() also waits.
            process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to drop the pipes of a killed process
            await process.wait()
        if len(out) + len(err) > request.limits.stdio_bytes:
            out, err, reason = b"", b"", "stdio-limit"
        stdio = [*_stdio("stdout", out, root), *_stdio("stderr", err, root)]
        return stdio, _result(process.returncode or 0, reason, loop.time() - started)


def rooted(text: str, root: Path) -> str:
    """Replace a guest's root in a text by a directory here, but not `src` inside of a path."""

    def replaced(match: re.Match[str]) -> str:
        word = _BEFORE_PATH.split(text[: match.start()])[-1]
        is_inside = word.endswith(".") or "/" in _SLASH_OPTION.sub("", word)
        return match[0] if is_inside else str(root)

    return _ROOT_IN_TEXT.sub(replaced, text)


def _result(returncode: int, reason: str, wall_seconds: float) -> ResultEvent:
    signal_number = max(-returncode, 0)
    return ResultEvent(
        exit_code=128 + signal_number if signal_number else returncode,
        signal=signal_number,
        reason=reason,
        wall_seconds=wall_seconds,
    )


def _stdio(stream: Literal["stdout", "stderr"], data: bytes, root: Path) -> list[ExecEvent]:
    data = data.replace(os.fsencode(root), SOURCE_ROOT.encode())
    return [StdioEvent(stream, data[i : i + _CHUNK]) for i in range(0, len(data), _CHUNK)]


def _below(root: Path, directory: str) -> list[str]:
    top = root / directory
    if top.is_symlink() or not top.is_dir():
        return []
    entries = [top, *sorted(top.rglob("*"))]
    return [f"{e.relative_to(root)}{'/' if e.is_dir() else ''}" for e in entries]


def _pieces(root: Path, path: str) -> list[ExecEvent]:
    if path.endswith("/"):
        return [OutputEvent(path, b"", is_executable=False, last=True)]
    file = root / path
    if file.is_symlink() or not file.is_file():
        return []
    data, is_executable = file.read_bytes(), bool(file.stat().st_mode & 0o100)
    if path.endswith(".d"):
        # A real guest writes its own root into a dependency file.
        data = data.replace(bytes(root), SOURCE_ROOT.encode())
    chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)] or [b""]
    return [
        OutputEvent(path, chunk, is_executable, i == len(chunks) - 1)
        for i, chunk in enumerate(chunks)
    ]


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(slots=True)
class FakeRuntime:
    """`hpcc.ports.Runtime` for tests. `running` holds the guests that exist now."""

    directory: Path
    faults: FakeFaults = field(default_factory=FakeFaults)
    isolation: Isolation = Isolation.LOCAL_NONE
    running: list[FakeGuest] = field(default_factory=list)
    booted: int = 0
    failed_boots: int = 0
    guest_class: type[FakeGuest] = FakeGuest

    async def probe(self) -> Probe:
        return Probe(
            is_usable=True,
            isolation=self.isolation,
            summary="local processes, no isolation: tests only",
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[FakeGuest]:
        """Yield a guest; kill it when the block ends."""
        if self.faults.boot_error:
            self.failed_boots += 1
            raise GuestBootError(self.faults.boot_error)
        del spec
        self.booted += 1
        guest = self.guest_class(f"fake-{self.booted}", self.directory, self.faults)
        self.running.append(guest)
        try:
            yield guest
        finally:
            self.running.remove(guest)
            guest.kill("ended")
