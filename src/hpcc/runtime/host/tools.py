"""Runs tools of the host with a deadline, and makes files once under a content key."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.runtime.host.threads import in_thread

_KEY_CHARS: Final = 32
_UNFINISHED: Final = ".new-"
_HASH_BYTES: Final = 1 << 20
_STDERR_TAIL: Final = 600
_LOCK_PAUSE_SECONDS: Final = 0.1


class ToolError(InfrastructureError):
    """A tool of the host is missing or failed; the text names the remedy."""

    default_reason = "host-tool"


async def run_tool(
    *argv: str,
    cwd: Path | None = None,
    timeout_seconds: float = 120.0,
    remedy: str = "",
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> str:
    """Run a tool of the host to its end and return its standard output.

    `remedy` is a command for the error's text. The output is decoded as UTF-8 with replacements.

    Raises:
        ToolError: the tool is missing, failed, or took longer than `timeout_seconds`.
    """
    hint = f"; try: {remedy}" if remedy else ""
    if shutil.which(argv[0]) is None:
        raise ToolError(f"{argv[0]} is not installed{hint}", reason="tool-missing")
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, env={**os.environ, "LC_ALL": "C", **(env or {})}, pass_fds=pass_fds,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise ToolError(f"{argv[0]} took longer than {timeout_seconds:.0f} s{hint}") from error
    finally:
        if process.returncode is None:
            process.kill()
            # wait() would also wait for pipes that are no longer read.
            await process.communicate()
    if process.returncode:
        tail = err.decode("utf-8", "replace").strip()[-_STDERR_TAIL:]
        raise ToolError(f"{argv[0]} failed with status {process.returncode}: {tail}{hint}")
    return out.decode("utf-8", "replace")


def key_of(parts: Iterable[bytes | str]) -> str:
    """Return 32 hex digits that name a sequence of inputs; order and boundaries count."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "big") + raw)
    return total.hexdigest()[:_KEY_CHARS]


def sha256_of(path: Path) -> str:
    """Return `sha256:…` of a file's content. Blocks.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@asynccontextmanager
async def locked(directory: Path) -> AsyncIterator[None]:
    """Hold the directory's lock, so that one process on this machine prepares at a time."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True, mode=0o700)
    fd = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_PAUSE_SECONDS)
        yield
    finally:
        os.close(fd)


def remove_unfinished(directory: Path) -> None:
    """Remove the unfinished files of killed processes. Call it under `locked`."""
    for path in directory.glob(_UNFINISHED + "*"):
        shutil.rmtree(path, ignore_errors=True)


async def made_once(target: Path, make: Callable[[Path], Awaitable[None]]) -> Path:
    """Return `target`; if it is absent, run `make(temporary)` and move the result into place.

    `target` may be a file or a directory. Call it under `locked`.
    """
    if await asyncio.to_thread(target.exists):
        return target
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_UNFINISHED) as name:
        temporary = Path(name, target.name)
        await make(temporary)
        await in_thread(lambda: _publish(temporary, target))
    return target


def _publish(temporary: Path, target: Path) -> None:
    if temporary.is_file():
        # The VMM may run as another user, and the file holds no secret.
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    temporary.rename(target)
