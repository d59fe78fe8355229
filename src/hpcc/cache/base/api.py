"""The types at the daemon's inner seams: launcher front, cache handler, remote dispatcher.

Tuples and bytes instead of records: this is the hit path (docs/adr/0001-architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from hpcc.cache.base.times import CompileTimes
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import RemoteOutcome, RemoteRequest
from hpcc.core.build_summary import BuildSummary

if TYPE_CHECKING:  # on Windows there are none
    pass

# The launcher captures at most this much of each stream; longer output makes a result uncacheable.
MAX_CAPTURE_BYTES: Final = 1 << 20


class CompileRequest(NamedTuple):
    """One run of a compiler, as the user started it.

    `argv[0]` is the compiler as the user spelled it, `compiler` the absolute path of the real
    compiler, never of hpcc. `env` holds only names that matter to a compiler (launcher/hpcc.c,
    `ENV_NAMES`). `frame` are the bytes of the request behind its build facts; b"" if a hit must not
    be remembered by them. `facts` are the build facts as sent. The handler fills in `build`, the
    identity of the build (`root.build_identity`), and `times`, which the build's record gets.
    """

    argv: tuple[bytes, ...]
    compiler: bytes
    cwd: bytes
    env: dict[bytes, bytes]
    umask: int
    stderr_is_tty: bool
    frame: bytes = b""
    facts: bytes = b""
    build: str = ""
    times: CompileTimes | None = None


class Done(NamedTuple):
    """The outputs are in place: the launcher prints both streams and exits."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Exec(NamedTuple):
    """A bypass: the launcher execs the compiler unchanged and reports nothing."""

    reason: str


class Run(NamedTuple):
    """The launcher runs `argv` (`argv[0]` an absolute path) and reports.

    The launcher passes both streams on as they come, and captures up to `MAX_CAPTURE_BYTES` of
    each. With `filter_headers` it holds stderr back, and `finish` returns what to print. With
    `is_tentative` it prints nothing of a compile that fails: it reports the failure and then runs
    the user's own command. `token` is the handler's own.
    """

    argv: tuple[bytes, ...]
    token: object
    filter_headers: bool = False
    is_tentative: bool = False


class RunReport(NamedTuple):
    """How a `Run` ended. `signal` is 0 or the one that killed the compiler (`exit_code` is 0)."""

    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    is_truncated: bool


class Finish(NamedTuple):
    """What the launcher still has to print; it exits with the compiler's status."""

    stdout: bytes
    stderr: bytes


class CompileHandler(Protocol):
    """Decides each compile. Called from many threads at once."""

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """Answer one compile; may block for minutes while a farm works on it.

        `is_cancelled` becomes true when the launcher is gone; the answer is then discarded. For a
        `Run` the caller calls `finish` or `abandon` once. Never raises.
        """
        ...

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        """Store the result if it may be stored. An error of the store is not raised."""
        ...

    def abandon(self, request: CompileRequest, run: Run) -> None:
        """Forget a `Run` whose launcher vanished before it reported."""
        ...

    def counters(self) -> dict[str, int]:
        """Return the numbers of `hpcc stats`, by stable names."""
        ...

    def command(self, words: list[str]) -> dict[str, object]:
        """Answer a command of this user that is not a compile.

        Raises:
            CallerError: it is unknown or cannot be obeyed; the text is for people.
        """
        ...

    def close(self) -> None:
        """Write back what is only in memory; the caller makes no further call."""
        ...


@runtime_checkable
class TakesBuilds(Protocol):
    """A client that tells its farm of builds. Thread-safe."""

    def farm(self) -> Farm | None:
        """See `RemoteClient.farm`."""
        ...

    def can_report(self) -> bool:
        """Return whether a dispatcher runs; cheap."""
        ...

    def report(self, summary: BuildSummary) -> str:
        """Send a summary and wait for the answer; return why it was not taken, "" if it was.

        No dispatcher is started for it (`NO_DISPATCHER`).
        """
        ...

    def before_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client is about to close."""
        ...


class RemoteClient(Protocol):
    """Access to a farm. Thread-safe; failures are values, not exceptions."""

    def farm(self) -> Farm | None:
        """Return the current farm or None; cheap enough to ask on every request."""
        ...

    def session(self) -> FarmSession | None:
        """Return the farm's answer at the last login of any process, or None; as cheap."""
        ...

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        """Compile on the farm and block until the end; polls `is_cancelled` to kill it there."""
        ...

    def close(self) -> None:
        """Release what this client started."""
        ...
