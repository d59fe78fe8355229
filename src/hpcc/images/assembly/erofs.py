"""Builds one erofs image from layers, in the limited builder process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcc.core import CallerError, HpccError, ImageDigest, InfrastructureError
from hpcc.images.assembly.builder import ERROR_FAMILIES, BuildRequest
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.oci.blobfile import LayerFile

# Part of a prepared image's name. Raise it when the same layers would give other bytes.
BUILDER_VERSION: Final = 1
# -P: a file called hpcc.py in the current directory must not be imported.
BUILDER_ARGV: Final = (sys.executable, "-P", "-m", "hpcc.images.assembly.builder")
INSTALL_HINT: Final = "install erofs-utils 1.7 or newer: sudo apt-get install erofs-utils"
_UUID_SPACE: Final = uuid.UUID("6f6a1c0a-6f0b-5c0e-9d52-2b6d3f6d1f6e")
_MAX_LINE_BYTES: Final = 1 << 20
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
        await asyncio.to_thread(partial.rename, output)
    except TimeoutError as error:
        raise InfrastructureError("building the image took too long", reason="timeout") from error
    finally:
        partial.unlink(missing_ok=True)
    report = result["report"]
    return ErofsImage(
        path=output,
        size_bytes=result["size_bytes"],
        sha256=result["sha256"],
        dropped=tuple((str(k), int(v)) for k, v in report.pop("dropped")),
        counts=tuple(sorted((str(k), int(v)) for k, v in report.items())),
    )


async def _run_builder(
    request: BuildRequest, progress: Callable[[int, int], None]
) -> dict[str, Any]:
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
        family = ERROR_FAMILIES.get(answer["error"], HpccError)
        raise family(str(answer["message"]), reason=str(answer["reason"]))
    result: dict[str, Any] = answer["result"]
    return result


async def _read_answer(
    stdout: asyncio.StreamReader, progress: Callable[[int, int], None]
) -> dict[str, Any] | None:
    async for line in stdout:
        message: dict[str, Any] = json.loads(line)
        if "done" not in message:
            return message
        progress(message["done"], message["total"])
    return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the builder's process group, which includes mkfs.erofs, and reap it despite a cancel."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    await asyncio.shield(process.wait())
