"""What is noted of one compile, before `records` and `build_notes` make texts of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.uncacheable import absolute
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.core import FarmRun

if TYPE_CHECKING:
    from hpcc.cache.results.pending import Pending


class Claims(Protocol):
    """Signs records of compiles that ended on this machine. Its calls raise nothing."""

    def ended(self, pending: Pending) -> None:
        """Note a compile that ended with status 0."""
        ...

    def flush(self) -> None:
        """Write what was noted."""
        ...


class _Compiler(Protocol):
    @property
    def digest(self) -> bytes: ...


class _Checkout(Protocol):
    @property
    def root(self) -> bytes: ...
    def spell(self, path: bytes, /) -> bytes: ...


class _Shared(Protocol):
    """A `Share`, or that of a Windows client."""

    @property
    def checkout(self) -> _Checkout: ...


class NotedCompile(Protocol):
    """What a record tells of a compile: a `Prepared`, or one of a Windows client."""

    @property
    def request(self) -> CompileRequest: ...
    @property
    def invocation(self) -> Invocation: ...
    @property
    def identity(self) -> _Compiler: ...
    @property
    def colour(self) -> tuple[bytes, ...]: ...
    @property
    def key(self) -> bytes: ...
    @property
    def share(self) -> _Shared | None: ...
    @property
    def source(self) -> bytes: ...
    @property
    def output(self) -> bytes | None: ...


class _Digest(NamedTuple):
    digest: bytes


@dataclass(frozen=True, slots=True)
class PlainNote:
    """A `NotedCompile` of a client that has no `Prepared`. `compiler` is a digest of its files."""

    request: CompileRequest
    invocation: Invocation
    compiler: bytes
    key: bytes
    source: bytes
    output: bytes
    share: _Shared | None = None
    colour: tuple[bytes, ...] = ()

    @property
    def identity(self) -> _Compiler:
        """See `NotedCompile`."""
        return _Digest(self.compiler)


class Note(NamedTuple):
    """One compile as the hit path notes it: only references, nothing computed."""

    at: float
    outcome: str
    request: CompileRequest
    prepared: NotedCompile | None
    reason: str = ""
    key: bytes = b""
    image: str = ""
    duration_ms: int = 0
    fallback: str = ""
    private: str = ""
    root: str = ""
    culprit: str = ""
    # Of a replayed hit, whose request is an older one.
    build: str | None = None
    # Which key signed the result of a hit, and what the remote cache had for a miss.
    signer: str = ""
    remote_cache: str = ""
    # The digest of a farm's action.
    action: str = ""
    # For the record of the build: of a replayed hit how long it took (else the request's times
    # say), the bytes of the outputs, with how many sources the command shares its time, and what
    # answered on a farm.
    seconds: float = 0.0
    size_bytes: int = 0
    sources: int = 1
    ran: FarmRun | None = None


def output_of(request: CompileRequest, prepared: NotedCompile | None) -> str:
    """Return the output's path, "" if there is none; for a bypass the value of -o."""
    if prepared is not None:
        return os.path.normpath(os.fsdecode(prepared.output)) if prepared.output else ""
    found = b""
    for argument, after in zip(request.argv, (*request.argv[1:], b""), strict=True):
        if argument == b"-o":
            found = after
        elif argument.startswith(b"-o") and len(argument) > 2:
            found = argument[2:]
    return os.path.normpath(os.fsdecode(absolute(request.cwd, found))) if found else ""


def sources_of(request: CompileRequest, prepared: NotedCompile | None) -> list[str]:
    """Return the sources' paths; for a bypass all arguments except flags, 64 at most."""
    if prepared is not None:
        return [os.path.normpath(os.fsdecode(prepared.source))]
    output = output_of(request, None)
    names = [a for a in request.argv[1:] if a and not a.startswith((b"-", b"@"))][:64]
    paths = [os.path.normpath(os.fsdecode(absolute(request.cwd, name))) for name in names]
    return [path for path in paths if path != output]
