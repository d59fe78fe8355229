"""One compile inside a guest, as data: what goes in, and the events that come out.

Paths are POSIX, relative to the guest's source root, without `.`, `..` or empty parts. Only
`check_guest_path` decides this, on both sides of the boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, cast

from hpcc.core.digest import Digest
from hpcc.core.errors import CallerError

SOURCE_ROOT: Final = "/src"

MAX_PATH_BYTES: Final = 4096
MAX_NAME_BYTES: Final = 255
MAX_INPUTS: Final = 100_000
MAX_OUTPUTS: Final = 64
# Files and directories in all output directories of one exec.
MAX_OUTPUT_ENTRIES: Final = 10_000
MAX_ARGV_BYTES: Final = 2 << 20
MAX_STDIO_BYTES: Final = 4 << 20
MAX_OUTPUT_BYTES: Final = 512 << 20


def check_guest_path(path: str) -> str:
    """Return `path` if it is relative, normal and within the limits.

    Raises:
        CallerError: it is absolute, escapes, is not normal, is too long or is not UTF-8.
    """
    # Nearly all paths are short and ASCII, and each compile has hundreds of them. For those this
    # asks the same as below, for a quarter of its cost.
    if path.isascii() and len(path) <= MAX_NAME_BYTES and "\0" not in path:
        framed = f"/{path}/"
        if "//" not in framed and "/./" not in framed and "/../" not in framed:
            return path
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CallerError("path is not UTF-8", reason="bad-path") from error
    parts = path.split("/")
    if (
        not raw
        or len(raw) > MAX_PATH_BYTES
        or b"\0" in raw
        or any(p in {"", ".", ".."} or len(p.encode()) > MAX_NAME_BYTES for p in parts)
    ):
        raise CallerError(f"not a normal relative path: {path[:120]!r}", reason="bad-path")
    return path


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input tree."""

    path: str
    digest: Digest
    is_executable: bool = False


@dataclass(frozen=True)
class InputPart:
    """The files of one directory at one place, and the directory's digest.

    Most parts of a request are those of the request before. What is made of a part, its maker
    therefore keeps with it.
    """

    directory: Digest
    files: tuple[InputFile, ...]

    @cached_property
    def by_hash(self) -> Mapping[str, Digest]:
        """The digests of the files by their hashes."""
        return {f.digest.hash: f.digest for f in self.files}

    @cached_property
    def digests(self) -> frozenset[Digest]:
        """The digests of the directory and its files."""
        return frozenset({self.directory, *self.by_hash.values()})

    @cached_property
    def parents(self) -> frozenset[str]:
        """The directories of the files' paths."""
        return frozenset(f.path.rpartition("/")[0] for f in self.files)

    def check(self, check: Callable[[tuple[InputFile, ...]], None]) -> None:
        """Check the files, unless they have passed before. Only one function may be passed, ever.

        Raises what `check` raises.
        """
        if "_is_checked" not in self.__dict__:
            check(self.files)
            self.__dict__["_is_checked"] = True

    def encoded(self, encode: Callable[[tuple[InputFile, ...]], bytes]) -> bytes:
        """Return the files as `encode` encodes them. Only one function may be passed, ever."""
        found = self.__dict__.get("_encoded")
        if found is None:
            found = self.__dict__["_encoded"] = encode(self.files)
        return cast("bytes", found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecLimits:
    """What one compile may use. The agent enforces it, and the host has a deadline as backup."""

    wall_seconds: float = 600.0
    memory_bytes: int = 2 << 30
    pids: int = 256
    output_bytes: int = MAX_OUTPUT_BYTES
    stdio_bytes: int = MAX_STDIO_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A compile for a guest. `cwd` and `outputs` are relative to the source root.

    `cwd` may be "" for the root itself. `env` is complete: nothing is inherited. If a path in
    `output_directories` is a directory after the compile, it is returned with all its content.
    `input_directories` are those of the input tree that hold nothing, and need not be all of them.
    `parts` has the files of `inputs` once more, in pieces that other requests share, or is empty.
    """

    exec_id: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    inputs: tuple[InputFile, ...]
    outputs: tuple[str, ...]
    output_directories: tuple[str, ...] = ()
    input_directories: tuple[str, ...] = ()
    limits: ExecLimits = field(default_factory=ExecLimits)
    parts: tuple[InputPart, ...] = ()


@dataclass(frozen=True, slots=True)
class StdioEvent:
    """Bytes that the compiler wrote, in order within each stream."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultEvent:
    """How the compile ended. There is exactly one, before any output.

    `signal` is 0 unless a signal ended it (then `exit_code` is 128 + signal). `reason` is ""
    for an ordinary end, else one of "deadline", "cancelled", "no-such-program", "stdio-limit",
    "output-limit", "output-tree", "memory", "agent-error". Times are seconds inside the guest.
    """

    exit_code: int
    signal: int = 0
    reason: str = ""
    wall_seconds: float = 0.0
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss_bytes: int = 0
    stage_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """A piece of an output file. Pieces of one path are consecutive, and `last` marks the end.

    A path that ends with "/" is a directory in or at an output directory.
    """

    path: str
    data: bytes
    is_executable: bool
    last: bool


ExecEvent = StdioEvent | ResultEvent | OutputEvent
