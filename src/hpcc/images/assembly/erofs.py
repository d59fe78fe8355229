"""Builds one erofs image from layers, in the limited builder process.

Layers are hostile, and what reads them may be theirs by the time it answers. So an answer is
checked as what a stranger sends. What lies in the output's place may be a link or a pipe:
`hpcc.images.store` opens it without following, and compares its content.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import (
    CallerError,
    HpccError,
    ImageDigest,
    InfrastructureError,
    IntegrityError,
)
from hpcc.images.assembly.builder import ERROR_FAMILIES, BuildRequest
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.oci.blobfile import LayerFile
from hpcc.obs.text import plain

# Part of a prepared image's name. Raise it when the same layers would give other bytes.
BUILDER_VERSION: Final = 1
# -P: a file called hpcc.py in the current directory must not be imported.
BUILDER_ARGV: Final = (sys.executable, "-P", "-m", "hpcc.images.assembly.builder")
INSTALL_HINT: Final = "install erofs-utils 1.7 or newer: sudo apt-get install erofs-utils"
_UUID_SPACE: Final = uuid.UUID("6f6a1c0a-6f0b-5c0e-9d52-2b6d3f6d1f6e")
_MAX_LINE_BYTES: Final = 1 << 20
_MAX_COUNTS, _MAX_NAME, _MAX_TEXT = 64, 100, 2000
_MAX_NUMBER: Final = 1 << 62
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_TIMEOUT_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErofsImage:
    """A finished image file: durable, read-only, a multiple of 4096 bytes."""

    path: Path
    size_bytes: int
    sha256: str
    dropped: tuple[tuple[str, int], ...]
    counts: tuple[tuple[str, int], ...]


def find_mkfs() -> str:
    """Return the path of mkfs.erofs.

    Raises:
        CallerError: it is not installed.
    """
    found = shutil.which("mkfs.erofs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise CallerError(f"mkfs.erofs is missing: {INSTALL_HINT}", reason="missing-tool")
    return found


async def check_mkfs(path: str) -> None:
    """Check that the mkfs.erofs at `path` can read a tar.

    Raises:
        CallerError: it is too old, or does not run.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--help",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(20):
            text, _ = await process.communicate()
    except (OSError, TimeoutError) as error:
        raise CallerError(f"{path} does not run: {INSTALL_HINT}", reason="missing-tool") from error
    if b"--tar=" not in text:
        raise CallerError(f"{path} cannot read a tar: {INSTALL_HINT}", reason="old-tool")


async def build_erofs(
    layers: Sequence[LayerFile],
    output: Path,
    *,
    identity: ImageDigest,
    progress: Callable[[int, int], None],
    limits: FlattenLimits | None = None,
) -> ErofsImage:
    """Build the image at `output`, whole or not at all. Equal inputs give equal bytes.

    `layers` are in order, bottom first. `progress` gets compressed bytes done and in total. After
    a cancel or an error the builder is dead and no file is left.

    Raises:
        IntegrityError: the layers are damaged or hostile; the text names the entry.
        CallerError: mkfs.erofs is missing or too old.
        InfrastructureError: the disk is full, or the tool or the builder died.
    """
    mkfs = find_mkfs()
    await check_mkfs(mkfs)
    partial = output.with_name(output.name + ".partial")
    request = BuildRequest(
        layers=tuple(layers),
        output=partial,
        uuid=str(uuid.uuid5(_UUID_SPACE, f"{BUILDER_VERSION}/{identity}")),
        mkfs=mkfs,
        limits=limits or FlattenLimits(),
    )
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            result = await _run_builder(request, progress)
        image = _image(result, output)
        if not stat.S_ISREG(partial.lstat().st_mode):
            raise _nonsense()
        await asyncio.to_thread(partial.rename, output)
    except TimeoutError as error:
        raise InfrastructureError("building the image took too long", reason="timeout") from error
    finally:
        await asyncio.to_thread(remove_whole, partial)
    return image


def remove_whole(path: Path) -> None:
    """Remove what is at a path, also a directory. A link is removed and not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _image(result: object, output: Path) -> ErofsImage:
    table = result if isinstance(result, dict) else {}
    size, sha256, report = (table.get(name) for name in ("size_bytes", "sha256", "report"))
    if not isinstance(report, dict) or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _nonsense()
    return ErofsImage(
        path=output,
        size_bytes=_number(size),
        sha256=sha256,
        dropped=_counts(report.pop("dropped", None)),
        counts=_counts(sorted(map(list, report.items()))),
    )


def _counts(pairs: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(pairs, list) or len(pairs) > _MAX_COUNTS:
        raise _nonsense()
    found = []
    for pair in pairs:
        match pair:
            case [str(name), number] if len(name) <= _MAX_NAME and name.isprintable():
                found.append((name, _number(number)))
            case _:
                raise _nonsense()
    return tuple(found)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise _nonsense()
    return value


def _nonsense() -> IntegrityError:
    return IntegrityError(
        "the image builder answers nonsense: a layer may have taken it over",
        reason="builder-answer",
    )


async def _run_builder(request: BuildRequest, progress: Callable[[int, int], None]) -> object:
    process = await asyncio.create_subprocess_exec(
        *BUILDER_ARGV,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.TaskGroup() as group:
            # stderr is drained beside stdout, so that a long error text cannot block the builder.
            complaint = group.create_task(process.stderr.read(_MAX_LINE_BYTES))
            process.stdin.write(request.to_json().encode() + b"\n")
            with suppress(ConnectionError):
                await process.stdin.drain()
            answer = await _read_answer(process.stdout, progress)
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    finally:
        await _end(process)
    if answer is None:
        last = complaint.result().decode("utf-8", "replace").strip().splitlines()[-1:]
        raise InfrastructureError(
            f"the image builder died (status {process.returncode}): {''.join(last)[:300]}",
            reason="builder-died",
        )
    if "error" in answer:
        raise _error(answer)
    return answer.get("result")


def _error(answer: Mapping[str, object]) -> HpccError:
    kind, text, reason = (answer.get(name) for name in ("error", "message", "reason"))
    family = ERROR_FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None or not isinstance(text, str) or not isinstance(reason, str):
        return _nonsense()
    if not _WORD.fullmatch(reason):
        return _nonsense()
    return family(plain(text[:_MAX_TEXT]), reason=reason)


async def _read_answer(
    stdout: asyncio.StreamReader, progress: Callable[[int, int], None]
) -> Mapping[str, object] | None:
    try:
        async for line in stdout:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise _nonsense()
            if "done" not in message:
                return message
            progress(_number(message["done"]), _number(message.get("total")))
    except (ValueError, RecursionError) as error:  # ValueError: also a line without end
        raise _nonsense() from error
    return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the builder's process group, which includes mkfs.erofs, and reap it despite a cancel."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    await asyncio.shield(process.wait())
