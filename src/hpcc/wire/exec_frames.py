"""Limits of the guest's Exec stream (proto/hpcc/v1/agent.proto). Both sides use them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

from hpcc.core import (
    EMPTY_DIGEST,
    MAX_ARGV_BYTES,
    MAX_INPUTS,
    MAX_OUTPUTS,
    CallerError,
    ExecLimits,
    ExecRequest,
    InputFile,
    InputPart,
    check_guest_path,
)

# MAX_INPUTS inputs of about 110 bytes (path of 60, digest, framing) are 11 MiB.
MAX_HEADER_FRAME_BYTES: Final = 32 << 20
# A chunk with its framing, and a Need of NEED_PER_FRAME digests (34 bytes each), fit easily.
MAX_FRAME_BYTES: Final = 1 << 20
# Measured: larger chunks are not faster over virtio-serial.
CHUNK_BYTES: Final = 256 << 10
NEED_PER_FRAME: Final = 16_384
# Blobs in a Header: nearly all compiles have one input that their guest has not seen.
MAX_HEADER_BLOBS: Final = 8
MAX_HEADER_BLOB_BYTES: Final = 256 << 10
# The minimum size of a piece of a file, except the last. An agent sends CHUNK_BYTES.
MIN_CHUNK_BYTES: Final = 64 << 10
# Stdio pieces in one exec. Each costs the host about 200 us.
MAX_STDIO_PIECES: Final = 8192
# The largest single source file. The guest holds it in memory twice.
MAX_INPUT_BYTES: Final = 256 << 20
MAX_TRACEPARENT_CHARS: Final = 55
MAX_DETAIL_BYTES: Final = 1024
ENTROPY_BYTES: Final = 64
_EXEC_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
GUEST_ID_PATTERN: Final = r"[a-z0-9-]{1,64}"
# name=value pairs on the guest's kernel command line, and its port. The agent reads them.
PORT_NAME: Final = "hpcc.agent"
TOKEN_PARAMETER: Final = "hpcc.tok"  # noqa: S105 - the parameter's name, not a secret
# Present on the kernel command line if the guest's channel is vsock and not the port above.
VSOCK_PARAMETER: Final = "hpcc.vsock"
VSOCK_PORT: Final = 5005


def check_exec_request(request: ExecRequest) -> None:
    """Check all that agent.proto requires of a Header: the host before sending, the guest after.

    What concerns the files of a part alone is checked once, because other requests share it.

    Raises:
        CallerError: the request violates a requirement.
    """
    if not _EXEC_ID.fullmatch(request.exec_id):
        raise CallerError(f"bad exec id: {request.exec_id[:130]!r}")
    outputs = max(len(request.outputs), len(request.output_directories))
    inputs = max(len(request.inputs), len(request.input_directories))
    if inputs > MAX_INPUTS or outputs > MAX_OUTPUTS:
        raise CallerError(f"more than {MAX_INPUTS} inputs or {MAX_OUTPUTS} outputs")
    _check_words(request.argv, request.env)
    if request.cwd:
        check_guest_path(request.cwd)
    for path in (*request.outputs, *request.output_directories, *request.input_directories):
        check_guest_path(path)
    _check_apart(request.output_directories, request.outputs)
    parts = request.parts or (InputPart(EMPTY_DIGEST, request.inputs),)
    if tuple(itertools.chain.from_iterable(part.files for part in parts)) != request.inputs:
        raise CallerError("the parts of a request are not its inputs")
    for part in parts:
        part.check(_check_files)
    _check_tree(
        parts,
        [request.cwd, *request.outputs, *request.output_directories],
        request.input_directories,
    )
    _check_limits(request.limits)


def _check_files(files: Sequence[InputFile]) -> None:
    for file in files:
        check_guest_path(file.path)
        if file.digest.size_bytes > MAX_INPUT_BYTES:
            raise CallerError(f"input {file.path[:120]!r} is larger than {MAX_INPUT_BYTES} bytes")


def _check_words(argv: Sequence[str], env: Sequence[tuple[str, str]]) -> None:
    if not argv or not argv[0]:
        raise CallerError("argv is empty")
    words = [*argv, *(word for pair in env for word in pair)]
    try:
        total = sum(len(w.encode()) + 1 for w in words)
    except UnicodeEncodeError as error:
        raise CallerError("argv or env is not UTF-8") from error
    if total > MAX_ARGV_BYTES:
        raise CallerError(f"argv and env are larger than {MAX_ARGV_BYTES} bytes")
    if any("\0" in w for w in words) or any(not n or "=" in n for n, _ in env):
        raise CallerError("a zero byte in argv or env, or a bad variable name")


def _check_tree(
    parts: Sequence[InputPart], others: Sequence[str], input_directories: Sequence[str]
) -> None:
    """Reject a path that occurs twice, or that lies under an input file."""
    seen = {file.path for part in parts for file in part.files}
    if len(seen) != sum(len(part.files) for part in parts):
        raise CallerError("an input path occurs twice")
    # Hundreds of files are in a few directories.
    directories = {path.rpartition("/")[0] for path in others}
    directories.update(input_directories)
    directories.update(*(part.parents for part in parts))
    used = directories.union(*map(_parents, directories))
    if others[0] in seen or not seen.isdisjoint(used):
        raise CallerError("an input is used as a directory")


def _check_apart(directories: Sequence[str], files: Sequence[str]) -> None:
    """Reject outputs that would be sent twice. A path in both lists is allowed if not nested."""
    seen = set(directories)
    below = any(parent in seen for path in (*directories, *files) for parent in _parents(path))
    if len(seen) != len(directories) or below:
        raise CallerError("an output directory occurs twice, or has another output in it")


def _parents(path: str) -> Iterator[str]:
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def _check_limits(limits: ExecLimits) -> None:
    counts = (limits.memory_bytes, limits.pids, limits.output_bytes, limits.stdio_bytes)
    if not (math.isfinite(limits.wall_seconds) and limits.wall_seconds > 0 and min(counts) > 0):
        raise CallerError("a limit is missing or not positive")
