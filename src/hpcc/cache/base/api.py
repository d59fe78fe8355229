"""What crosses the daemon's inner seams: launcher front, cache handler, remote dispatcher.

Tuples and bytes instead of records: this is the hit path (docs/adr/0001-architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import RemoteOutcome, RemoteRequest

if TYPE_CHECKING:  # on Windows there are none
    pass

# The launcher keeps at most this much of each stream; a compiler that says more is not stored.
MAX_CAPTURE_BYTES: Final = 1 << 20


class CompileRequest(NamedTuple):
    """One run of a compiler, as the user started it.

    `argv[0]` is the compiler as the user spelled it, `compiler` the absolute path of the real
    one, never hpcc itself. `env` holds only names that matter to a compiler (launcher/hpcc.c,
    `ENV_NAMES`). `frame` are the bytes all this was read from; b"" when they are not to be
    remembered.
    """

    argv: tuple[bytes, ...]
    compiler: bytes
    cwd: bytes
    env: dict[bytes, bytes]
    umask: int
    stderr_is_tty: bool
    frame: bytes = b""


class Done(NamedTuple):
    """The outputs are in place: the launcher prints and exits."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Exec(NamedTuple):
    """Not ours: the launcher execs the compiler unchanged and reports nothing."""

    reason: str


class Run(NamedTuple):
    """The launcher runs `argv` (`argv[0]` an absolute path) and reports.

    Both streams are passed on as they come and captured, up to `MAX_CAPTURE_BYTES` each. With
    `filter_headers` stderr is held back and `finish` says what the user is to see of it. With
    `is_tentative` nothing is shown of a compile that fails: the launcher reports it and then runs
    the user's own command.
    """

    argv: tuple[bytes, ...]
    token: object
    filter_headers: bool = False
    is_tentative: bool = False


class RunReport(NamedTuple):
    """How a `Run` ended. `signal` is 0, or what killed the compiler (`exit_code` is then 0)."""

    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    is_truncated: bool


class Finish(NamedTuple):
    """What the launcher still has to print; it exits with the compiler's own status."""

    stdout: bytes
    stderr: bytes


class CompileHandler(Protocol):
    """Decides each compile. Called from many threads at once."""

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """Answer one compile; may block for minutes while a farm works on it.

        `is_cancelled` turns true when the launcher is gone; nobody reads the answer then.
        """
        ...

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        """Store the result if it may be stored. Never raises for a fault of the store."""
        ...

    def abandon(self, request: CompileRequest, run: Run) -> None:
        """Forget a `Run` whose launcher vanished before it reported."""
        ...

    def counters(self) -> dict[str, int]:
        """Return what `hpcc stats` shows, by stable names."""
        ...

    def close(self) -> None:
        """Write back what is only in memory; no call follows."""
        ...


class RemoteClient(Protocol):
    """The way to a farm. Thread-safe; failures are values."""

    def farm(self) -> Farm | None:
        """Return the current farm or None; cheap enough to ask on every request."""
        ...

    def session(self) -> FarmSession | None:
        """Return what that farm said at the last login, of whichever process; as cheap."""
        ...

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        """Compile on the farm, blocking; `is_cancelled` is polled and kills it there."""
        ...

    def close(self) -> None:
        """End what was started for it."""
        ...
