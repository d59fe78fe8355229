"""The limited process that turns layers into a file system image: `python -m` this module.

It reads one JSON request line on stdin, writes progress and one result as JSON lines on stdout,
and ends when its parent closes the other end of stdin. Hostile layers are read here, under limits
of memory and processor time, without capabilities and, where the kernel has Landlock, with no
files but its own and no network (`confine`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import hpcc
from hpcc.core import CallerError, Digest, HpccError, InfrastructureError, IntegrityError
from hpcc.images.assembly.confine import confine
from hpcc.images.assembly.flatten import FlattenReport, flatten
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.oci.blobfile import LayerFile

MAX_REQUEST_BYTES: Final = 1 << 20
ERROR_FAMILIES: Final[dict[str, type[HpccError]]] = {
    "caller": CallerError,
    "integrity": IntegrityError,
    "infrastructure": InfrastructureError,
}
# A tree of 200,000 entries takes about 200 MiB here and 100 MiB in mkfs.erofs.
_ADDRESS_SPACE_BYTES: Final = 4 << 30
# The largest accepted image takes about five minutes. A loop in a decompressor never ends.
_CPU_SECONDS: Final = 1800
_BLOCK_BYTES: Final = 4096
_STDERR_BYTES: Final = 2000
_PROGRAMS: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/urandom")
# Room for what other programs write to the same disk meanwhile.
_SPARE_BYTES: Final = 64 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """The parent's request. `output` must not exist; `uuid` becomes the file system's."""

    layers: tuple[LayerFile, ...]
    output: Path
    uuid: str
    mkfs: str
    limits: FlattenLimits

    def to_json(self) -> str:
        """Return the request as one line of JSON, without a newline."""
        return json.dumps(
            {
                "layers": [[str(one.path), str(one.digest)] for one in self.layers],
                "output": str(self.output),
                "uuid": self.uuid,
                "mkfs": self.mkfs,
                "limits": dataclasses.asdict(self.limits),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        """Parse a request of the parent, which is trusted."""
        raw = json.loads(text)
        return cls(
            layers=tuple(LayerFile(Path(p), Digest.parse(d)) for p, d in raw["layers"]),
            output=Path(raw["output"]),
            uuid=raw["uuid"],
            mkfs=raw["mkfs"],
            limits=FlattenLimits(**raw["limits"]),
        )


def build(request: BuildRequest, progress: Callable[[int, int], None]) -> dict[str, object]:
    """Stream the layers through mkfs.erofs into `request.output`; return the result's fields.

    The fields are `size_bytes`, `sha256` and `report`. On any failure the output is deleted.

    Raises:
        IntegrityError: the layers are hostile or damaged.
        InfrastructureError: the tool failed, most often because of a full disk.
    """
    try:
        report = _run_mkfs(request, progress)
        check_space(request.output.parent, 0)
        size, sha256 = _seal(request.output)
    except BaseException:
        request.output.unlink(missing_ok=True)
        raise
    return {"size_bytes": size, "sha256": sha256, "report": dataclasses.asdict(report)}


def _run_mkfs(request: BuildRequest, progress: Callable[[int, int], None]) -> FlattenReport:
    # -T0: one time for all files. -x-1: no extended attributes. Without SOURCE the tar is stdin.
    argv = [request.mkfs, "--quiet", "-T0", "-x-1", "-zlz4", "-C65536"]
    argv += ["-U", request.uuid, "--tar=f", str(request.output)]
    with subprocess.Popen(  # noqa: S603, TID251 - fixed arguments; this process has no loop to block
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # The only directory where it may write.
        env={**os.environ, "TMPDIR": str(request.output.parent)},
    ) as tool:
        assert tool.stdin is not None
        try:
            report = flatten(
                request.layers,
                tool.stdin,
                limits=request.limits,
                progress=progress,
                measured=lambda count: check_space(request.output.parent, 2 * count),
            )
            tool.stdin.close()
        except BrokenPipeError:
            raise _tool_failed(tool) from None
        except BaseException:
            tool.kill()
            # close() tries to flush buffered bytes to the tool, which is dead.
            with contextlib.suppress(BrokenPipeError):
                tool.stdin.close()
            raise
        if tool.wait() != 0:
            raise _tool_failed(tool)
    return report


def check_space(directory: Path, needed_bytes: int) -> None:
    """Check that `needed_bytes` fit on the disk of `directory`.

    mkfs.erofs 1.8 does not check its writes of file data: on a full disk it can report success and
    leave holes in the files. It needs space for the raw and the compressed data at the same time.

    Raises:
        InfrastructureError: too little space is left.
    """
    disk = os.statvfs(directory)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < needed_bytes + _SPARE_BYTES:
        raise InfrastructureError(
            f"the disk of {directory} is too full: {free_bytes >> 20} MiB free, "
            f"{(needed_bytes + _SPARE_BYTES) >> 20} MiB needed; "
            "free some, or remove images (`hpcc image rm`)",
            reason="disk-full",
        )


def _tool_failed(tool: subprocess.Popen[bytes]) -> InfrastructureError:  # noqa: TID251 - a type
    assert tool.stderr is not None
    text = tool.stderr.read(_STDERR_BYTES).decode("utf-8", "replace").strip()
    status = tool.wait()
    if tool.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            tool.stdin.close()
    return InfrastructureError(
        f"mkfs.erofs failed with status {status}: {text or 'no message'} "
        "(is the disk full? run `df` on the image directory)",
        reason="mkfs-failed",
    )


def _seal(path: Path) -> tuple[int, str]:
    """Make the image durable and read-only; return its size in bytes and its SHA-256 in hex."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
    # A virtio block device drops a partial last block. A whole erofs image never has one.
    if size == 0 or size % _BLOCK_BYTES:
        raise InfrastructureError(
            f"mkfs.erofs left {size} bytes: not a file system image", reason="mkfs-failed"
        )
    return size, sha256


def _limit_self() -> None:
    # Imported here: it exists on POSIX only, and other systems import the names above.
    import resource

    for what, wanted in (
        (resource.RLIMIT_AS, _ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        # RLIMIT_FSIZE cannot be set: mkfs.erofs spools file data at an offset of terabytes.
        hard = resource.getrlimit(what)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (value, value))
    with contextlib.suppress(OSError):
        os.unshare(os.CLONE_NEWNET)  # needs privilege, and is an extra that may fail


def _readable(request: BuildRequest) -> list[Path]:
    """Return what the builder reads: the layers, its program, and the tool with its libraries."""
    programs = [sys.prefix, sys.base_prefix, *_PROGRAMS, str(Path(hpcc.__file__).parent)]
    return [*map(Path, programs), Path(request.mkfs), *(one.path for one in request.layers)]


def _die_with_parent(output: Path) -> None:
    """Start a thread that kills the whole process group when the parent closes stdin."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        output.unlink(missing_ok=True)
        os.killpg(0, signal.SIGKILL)  # the parent started this process in a new group

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _family(error: HpccError) -> str:
    for name, family in ERROR_FAMILIES.items():
        if isinstance(error, family):
            return name
    return "infrastructure"


def main() -> int:
    """Serve one request; the last line on stdout is the result or the error."""
    # Unbuffered, because the watcher reads the same descriptor.
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_REQUEST_BYTES:
        byte = os.read(0, 1)
        if not byte:
            return 2
        line += byte
    request = BuildRequest.from_json(line.decode())
    _limit_self()
    confine(readable=_readable(request), writable=[request.output.parent, Path(os.devnull)])
    _die_with_parent(request.output)
    try:
        result = build(request, lambda done, total: _say({"done": done, "total": total}))
    except HpccError as error:
        _say({"error": _family(error), "reason": error.reason, "message": str(error)})
        return 1
    except MemoryError:
        _say({"error": "integrity", "reason": "memory", "message": "out of memory: image refused"})
        return 1
    _say({"result": result})
    return 0


if __name__ == "__main__":
    # Not sys.exit, which would wait for the watcher thread: it blocks in read(2) on stdin.
    status = main()
    sys.stdout.flush()
    os._exit(status)
