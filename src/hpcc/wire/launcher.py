"""The protocol between launcher and daemon: frames as bytes, without any I/O.

The launcher's half is launcher/wire.h. A frame is magic, type and body length (three
little-endian 32-bit words), then the body. Strings in a body end in NUL, as argv does anyway.
Every deviation is one error: `CallerError` with reason `malformed-frame`.

A request has two more words in front: the protocol's version and the length of the build facts,
then those facts (`wire.build_facts`). What follows is the request's key. The facts are outside of
it, because a request of the next build must find the replay of this one.

Values are tuples and bytes, because this is the hit path (docs/adr/0001-architecture.md).
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from hpcc import __version__
from hpcc.core import CallerError
from hpcc.wire.build_facts import MAX_FACTS_BYTES

# Any change to the bytes below increments it; tools/hatch_build.py reads it from here.
PROTOCOL_VERSION: Final = 4
# Launcher and daemon work together only if they come from the same build.
BUILD_ID: Final = f"{__version__}-{PROTOCOL_VERSION}"

MAGIC: Final = b"hpc1"
HEADER_BYTES: Final = 12

REQUEST: Final = 1
REPORT: Final = 2
ADMIN: Final = 3
WAIT: Final = 16
DONE: Final = 17
RUN: Final = 18
EXEC: Final = 19
FINISH: Final = 20
VERSION: Final = 21
ADMIN_REPLY: Final = 22

# argv and environment together; Linux allows a process 6 MiB by default.
MAX_REQUEST_BYTES: Final = 8 << 20
MAX_ARGC: Final = 1 << 18
# The launcher's list of names has thirty. Prefixes such as LC_ and HPCC_ add some.
MAX_ENVC: Final = 4096
MAX_CAPTURE_BYTES: Final = 1 << 20
MAX_REPORT_BYTES: Final = 20 + 2 * MAX_CAPTURE_BYTES
# Two streams of at most 4 MiB from a farm, and as much again for longer paths on this machine.
MAX_REPLY_BYTES: Final = 16 << 20
MAX_REASON_BYTES: Final = 256
# A command with a path, whose limit is PATH_MAX.
MAX_ADMIN_BYTES: Final = 8192
MAX_ADMIN_REPLY_BYTES: Final = 1 << 20
# A device number that does not exist. It means that the id of the mount at `/` follows.
MOUNT_IS_ID: Final = (1 << 64) - 1
_MAX_SIGNAL: Final = 127
_MAX_EXIT_CODE: Final = 255

_MAX_BODY: Final = {
    REQUEST: MAX_REQUEST_BYTES,
    REPORT: MAX_REPORT_BYTES,
    ADMIN: MAX_ADMIN_BYTES,
    WAIT: 0,
    DONE: MAX_REPLY_BYTES,
    RUN: MAX_REPLY_BYTES,
    EXEC: MAX_REASON_BYTES,
    FINISH: MAX_REPLY_BYTES,
    VERSION: 4 + MAX_REASON_BYTES,
    ADMIN_REPLY: MAX_ADMIN_REPLY_BYTES,
}

_HEADER: Final = struct.Struct("<4sII")
# Of a request: the header, the protocol's version and the length of the build facts.
_FRONT: Final = struct.Struct("<4s4I")
_REQUEST: Final = struct.Struct("<5I6Q")
_REPORT: Final = struct.Struct("<5I")
_DONE: Final = struct.Struct("<3I")
_PAIR: Final = struct.Struct("<2I")
_WORD: Final = struct.Struct("<I")

_IS_TTY: Final = 1
_IS_TRUNCATED: Final = 1
_FILTER_HEADERS: Final = 1
_TENTATIVE: Final = 2
# build id, compiler, cwd
_LEADING_STRINGS: Final = 3

_DRIVE_PATH: Final = re.compile(rb"[A-Za-z]:[\\/]")

WAIT_FRAME: Final = _HEADER.pack(MAGIC, WAIT, 0)


class LauncherRequest(NamedTuple):
    """One compile as the launcher sent it.

    The three (device, inode) pairs are those of the working directory, of `/` and of the mount
    namespace, as the launcher sees them; (0, 0) if it could not read one. `env` keeps its order.
    `gid` is the group that a file of the launcher gets. `facts` are the build facts as sent, for
    `wire.build_facts`.
    """

    build_id: bytes
    compiler: bytes
    cwd: bytes
    argv: tuple[bytes, ...]
    env: tuple[tuple[bytes, bytes], ...]
    umask: int
    gid: int
    stderr_is_tty: bool
    cwd_id: tuple[int, int]
    root_id: tuple[int, int]
    mount_id: tuple[int, int]
    facts: bytes = b""


class LauncherReport(NamedTuple):
    """How the compiler ended; see `daemon.RunReport`."""

    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    is_truncated: bool


class LauncherDone(NamedTuple):
    """What the launcher prints before it exits with `exit_code`."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class LauncherRun(NamedTuple):
    """What the launcher runs; `argv[0]` is an absolute path.

    `is_tentative`: it contains flags that the user did not give. Its output is shown only on
    success. A failure is reported, and then the launcher runs the user's own command.
    """

    argv: tuple[bytes, ...]
    filter_headers: bool
    is_tentative: bool = False


def _malformed(what: str) -> CallerError:
    return CallerError(f"launcher frame: {what}", reason="malformed-frame")


def frame(kind: int, body: bytes) -> bytes:
    """Return a frame: a header, then the body.

    Raises:
        CallerError: the body is longer than a frame of its kind may be.
    """
    if len(body) > _MAX_BODY[kind]:
        raise _malformed(f"{len(body)} bytes are too many for type {kind}")
    return _HEADER.pack(MAGIC, kind, len(body)) + body


def parse_header(head: bytes | bytearray) -> tuple[int, int]:
    """Return type and body length from the first `HEADER_BYTES` of `head`.

    Raises:
        CallerError: not a frame of this protocol, or longer than its type may be.
    """
    if len(head) < HEADER_BYTES:
        raise _malformed("cut off in its header")
    magic, kind, length = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise _malformed("wrong magic")
    limit = _MAX_BODY.get(kind)
    if limit is None:
        raise _malformed(f"unknown type {kind}")
    if length > limit:
        raise _malformed(f"{length} bytes are too many for type {kind}")
    return kind, length


def encode_request(request: LauncherRequest, *, protocol: int = PROTOCOL_VERSION) -> bytes:
    """Return the body of a request; only tests and benchmarks need it."""
    strings = [request.build_id, request.compiler, request.cwd, *request.argv]
    strings += [name + b"=" + value for name, value in request.env]
    if any(b"\0" in text for text in strings):
        raise _malformed("NUL inside a string")
    front = _PAIR.pack(protocol, len(request.facts)) + request.facts
    fixed = _REQUEST.pack(
        _IS_TTY if request.stderr_is_tty else 0,
        request.umask,
        len(request.argv),
        len(request.env),
        request.gid,
        *request.cwd_id,
        *request.root_id,
        *request.mount_id,
    )
    return frame(REQUEST, front + fixed + b"\0".join(strings) + b"\0")


def split_request(data: bytes) -> tuple[bytes, bytes]:
    """Return key and build facts of a whole request frame; two empty texts for anything else.

    On the hit path: it does not check the request. Requests with one key have one answer.
    """
    if len(data) < _FRONT.size:
        return b"", b""
    magic, kind, length, protocol, facts = _FRONT.unpack_from(data)
    is_whole = magic == MAGIC and kind == REQUEST and length == len(data) - HEADER_BYTES
    if not is_whole or protocol != PROTOCOL_VERSION or facts > MAX_FACTS_BYTES:
        return b"", b""
    start = _FRONT.size + facts
    return data[start:], data[_FRONT.size : start]


def request_protocol(body: bytes) -> int:
    """Return the protocol version, which is first in every version of the request.

    Raises:
        CallerError: the body is too short for a version.
    """
    if len(body) < _WORD.size:
        raise _malformed("request without a version")
    (protocol,) = _WORD.unpack_from(body)
    return int(protocol)


def _is_absolute(path: bytes, *, is_windows: bool) -> bool:
    return bool(_DRIVE_PATH.match(path)) if is_windows else path[:1] == b"/"


def decode_request(body: bytes, *, is_windows: bool = False) -> LauncherRequest:
    """Return the request in a body of `PROTOCOL_VERSION`.

    With `is_windows` it came over a pipe: paths begin with a drive, and all text is UTF-8.

    Raises:
        CallerError: the body has any other form.
    """
    facts_bytes = _PAIR.unpack_from(body)[1] if len(body) > _PAIR.size else 0
    fixed = _PAIR.size + facts_bytes
    start = fixed + _REQUEST.size
    if facts_bytes > MAX_FACTS_BYTES or len(body) <= start:
        raise _malformed("request is cut off, or has too many build facts")
    flags, umask, argc, envc, gid, *ids = _REQUEST.unpack_from(body, fixed)
    if not 0 < argc <= MAX_ARGC or envc > MAX_ENVC:
        raise _malformed(f"{argc} arguments and {envc} variables")
    if flags & ~_IS_TTY or umask & ~0o777:
        raise _malformed("reserved bits are set")
    # Count before splitting, so that a body of NULs costs nothing.
    if body.count(0, start) != _LEADING_STRINGS + argc + envc or body[-1]:
        raise _malformed("count of strings")
    strings = body[start:-1].split(b"\0")
    build_id, compiler, cwd = strings[:_LEADING_STRINGS]
    if not all(_is_absolute(path, is_windows=is_windows) for path in (compiler, cwd)):
        raise _malformed("compiler or cwd is not absolute")
    env = []
    for text in strings[_LEADING_STRINGS + argc :]:
        name, equals, value = text.partition(b"=")
        if not equals or not name:
            raise _malformed("variable without a name")
        env.append((name, value))
    return LauncherRequest(
        build_id,
        compiler,
        cwd,
        tuple(strings[_LEADING_STRINGS : _LEADING_STRINGS + argc]),
        tuple(env),
        umask,
        gid,
        bool(flags),
        (ids[0], ids[1]),
        (ids[2], ids[3]),
        (ids[4], ids[5]),
        body[_PAIR.size : fixed],
    )


def encode_report(report: LauncherReport) -> bytes:
    """Return the body that the launcher sends after a run; only tests and benchmarks need it."""
    fixed = _REPORT.pack(
        report.exit_code,
        report.signal,
        _IS_TRUNCATED if report.is_truncated else 0,
        len(report.stdout),
        len(report.stderr),
    )
    return frame(REPORT, fixed + report.stdout + report.stderr)


def decode_report(body: bytes) -> LauncherReport:
    """Return the report in a body.

    Raises:
        CallerError: the body has any other form.
    """
    if len(body) < _REPORT.size:
        raise _malformed("report is cut off")
    exit_code, signal, flags, out_bytes, err_bytes = _REPORT.unpack_from(body)
    if exit_code > _MAX_EXIT_CODE or signal > _MAX_SIGNAL or (signal and exit_code):
        raise _malformed("impossible exit status")
    if flags & ~_IS_TRUNCATED or max(out_bytes, err_bytes) > MAX_CAPTURE_BYTES:
        raise _malformed("report with wrong flags or lengths")
    out, err = _streams(body, _REPORT.size, out_bytes, err_bytes)
    return LauncherReport(exit_code, signal, out, err, bool(flags))


def _streams(body: bytes, start: int, out_bytes: int, err_bytes: int) -> tuple[bytes, bytes]:
    if start + out_bytes + err_bytes != len(body):
        raise _malformed("lengths of the streams")
    middle = start + out_bytes
    return body[start:middle], body[middle:]


def encode_done(done: LauncherDone) -> bytes:
    """Return the answer to a hit."""
    fixed = _DONE.pack(done.exit_code, len(done.stdout), len(done.stderr))
    return frame(DONE, fixed + done.stdout + done.stderr)


def decode_done(body: bytes) -> LauncherDone:
    """Return the answer in the body of a hit.

    Raises:
        CallerError: the body has any other form.
    """
    if len(body) < _DONE.size:
        raise _malformed("answer is cut off")
    exit_code, out_bytes, err_bytes = _DONE.unpack_from(body)
    if exit_code > _MAX_EXIT_CODE:
        raise _malformed("impossible exit status")
    return LauncherDone(exit_code, *_streams(body, _DONE.size, out_bytes, err_bytes))


def encode_run(run: LauncherRun, *, is_windows: bool = False) -> bytes:
    """Return the command to run a compiler.

    Raises:
        CallerError: argv is not a valid argv, or is too long.
    """
    is_absolute = bool(run.argv) and _is_absolute(run.argv[0], is_windows=is_windows)
    if not is_absolute or any(b"\0" in text for text in run.argv):
        raise _malformed("argv of a run")
    flags = _FILTER_HEADERS * run.filter_headers | _TENTATIVE * run.is_tentative
    fixed = _PAIR.pack(flags, len(run.argv))
    return frame(RUN, fixed + b"\0".join(run.argv) + b"\0")


def decode_run(body: bytes) -> LauncherRun:
    """Return the command in the body of a run.

    Raises:
        CallerError: the body has any other form.
    """
    if len(body) <= _PAIR.size + 1:
        raise _malformed("run is cut off")
    flags, argc = _PAIR.unpack_from(body)
    if not 0 < argc <= MAX_ARGC or body.count(0, _PAIR.size) != argc or body[-1]:
        raise _malformed("count of strings")
    if flags & ~(_FILTER_HEADERS | _TENTATIVE) or body[_PAIR.size] != ord("/"):
        raise _malformed("run with wrong flags or a relative path")
    argv = tuple(body[_PAIR.size : -1].split(b"\0"))
    return LauncherRun(argv, bool(flags & _FILTER_HEADERS), bool(flags & _TENTATIVE))


def encode_exec(reason: str) -> bytes:
    """Return the answer that leaves the compile to the user's compiler."""
    return frame(EXEC, reason.encode("utf-8", "replace")[:MAX_REASON_BYTES])


def encode_finish(stdout: bytes, stderr: bytes) -> bytes:
    """Return the answer to a report."""
    return frame(FINISH, _PAIR.pack(len(stdout), len(stderr)) + stdout + stderr)


def decode_finish(body: bytes) -> tuple[bytes, bytes]:
    """Return stdout and stderr from the answer to a report.

    Raises:
        CallerError: the body has any other form.
    """
    if len(body) < _PAIR.size:
        raise _malformed("answer is cut off")
    return _streams(body, _PAIR.size, *_PAIR.unpack_from(body))
