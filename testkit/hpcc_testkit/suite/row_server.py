"""Runs mutation rows in forked copies of a process that has pytest loaded.

Most of what a mutation row costs is the start of pytest: its plugins, Hypothesis and third-party
libraries. This program loads them once, then forks a process per row. `RowServer` starts it.

The rule that keeps a row sound: this process never imports `hpcc`. Every row imports the product
and its tests itself, the product from the mutated copy, which is first on PYTHONPATH. So no module
object is older than the mutation. Programs that a test starts inherit PYTHONPATH and see the copy.
(Measured: a row costs 0.21 s of CPU, 0.74 s as a new pytest. With the product loaded as well it
would cost 0.1 s, if no module had to be dropped again; most would be.)

The server forks only while it has one thread. A row runs in its own session. The server kills the
row's process group when the row ends or exceeds its time. When the request pipe closes, the server
kills the row that runs and exits, so that no row outlives the pytest process that asked for it.

Protocol: one JSON object per line. A request on stdin has the fields of `Row`. An answer on stdout:
`status` (exit status, negative for a signal, null if the row exceeded its time), `said` (the end of
its output), `report` (what `Recorder` saw, null if the row ended before it could report).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import pytest

# Of a row's output only the end is kept: that is where pytest names the failure.
_SAID_BYTES: Final = 16384
_READ_BYTES: Final = 65536
_DETAIL_CHARS: Final = 2000
# What rows import most. A name that is missing here costs time and changes no result.
_PRELOADED: Final = (
    "asyncio.subprocess", "concurrent.futures.thread", "ctypes", "email.message", "http.client",
    "http.server", "logging.config", "multiprocessing", "resource", "sqlite3", "ssl", "tarfile",
    "tomllib", "unittest.mock", "urllib.request", "uuid",
    "asyncpg", "grpc.aio", "grpclib.client", "grpclib.server", "h2.connection", "httpx",
    "hypothesis.stateful", "jwt", "obstore", "rich.progress", "rich.table", "zstandard",
    "buildgrid.common.protos.build.bazel.remote.execution.v2.remote_execution_pb2",
    "buildgrid.common.protos.google.bytestream.bytestream_pb2",
    "buildgrid.common.protos.google.rpc.error_details_pb2",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.kdf.hkdf",
    "cryptography.x509",
    "google.protobuf.any_pb2", "google.protobuf.duration_pb2", "google.protobuf.empty_pb2",
    "google.protobuf.field_mask_pb2", "google.protobuf.struct_pb2",
    "google.protobuf.timestamp_pb2", "google.protobuf.wrappers_pb2",
)  # fmt: skip
# Loads what pytest and its plugins import late: asyncio's runner, Hypothesis, the text of failures.
# Derandomized, so that Hypothesis makes no random state that all rows would share.
_WARM_UP: Final = """
from hypothesis import given, settings, strategies

@settings(derandomize=True, max_examples=5, database=None, deadline=None)
@given(strategies.lists(strategies.text() | strategies.binary() | strategies.integers()))
def test_given(values):
    assert isinstance(values, list)

async def test_awaits(tmp_path, monkeypatch, capfd):
    assert tmp_path.exists()

def test_fails():
    assert [1, {"a": 2}] == [1, {"a": 3}]
"""


class Row(NamedTuple):
    """What one forked process runs."""

    arguments: list[str]
    """pytest's arguments."""
    module: str
    """The mutated module, which must still be importable; empty if it is not a Python module."""
    file: str
    """The mutated file, which `module` must come from."""
    seconds: float
    """How long the row may take."""


class Recorder:
    """A pytest plugin that tells a test's failure from everything else that ends a run with 1.

    `failed` has the first test whose own code failed, `others` what failed before it.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self.collected = 0
        self.failed: list[str] = []
        self.others: list[str] = []

    def pytest_configure(self) -> None:
        """Stop Hypothesis at the first failing example: a row needs no smaller one.

        The example database is off: mutants would fill it with examples that fail only for them.
        """
        from hypothesis import Phase, settings

        phases = [p for p in settings().phases if p not in {Phase.shrink, Phase.explain}]
        settings.register_profile("mutation-row", phases=phases, database=None)
        settings.load_profile("mutation-row")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected = len(session.items)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.code = int(exitstatus)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.others.append(f"collection of {report.nodeid}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        # A test that failed leaves sockets and tasks open, about which its teardown complains.
        if report.failed and not self.failed:
            if other := _not_a_failure(report, call):
                self.others.append(f"{other} of {item.nodeid}")
            else:
                self.failed.append(item.nodeid)
        return report


def _not_a_failure(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """Return what a failed report is if not a test's failure, else an empty string."""
    if report.when != "call":
        return str(report.when)
    if call.excinfo is None:
        return "unexpected pass"
    if call.excinfo.errisinstance(pytest.skip.Exception):  # tests/conftest.py fails these in CI
        return "skip"
    return "timeout" if "from pytest-timeout" in str(report.longrepr) else ""


def main() -> int:
    """Serve rows until stdin closes; returns 0. The process of a row exits in here."""
    root, directory = map(Path, sys.argv[1:])
    # As `python -m pytest` in the repository; -P kept this file's directory out of the path.
    sys.path.insert(0, str(root))
    answers = os.dup(1)
    os.dup2(2, 1)  # the warm-up's output must not mix with answers
    _load(root, directory)
    started = _serve(0, answers)
    if started is not None:
        _leave(_run(*started))
    return 0


def _load(root: Path, directory: Path) -> None:
    warm_up = directory / "test_warm_up.py"
    warm_up.write_text(_WARM_UP)
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "addopts=",
        "-o",
        "testpaths=",
    ]
    # Before all else: pytest rewrites the asserts of its plugins only as they are first imported.
    code = pytest.main([*options, "-c", str(root / "pyproject.toml"), str(warm_up)])
    if code != pytest.ExitCode.TESTS_FAILED:
        raise RuntimeError(f"the warm-up ended with {code!r}")
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # rows then neither scan nor copy what was loaded here


def _serve(requests: int, answers: int) -> tuple[Row, int] | None:
    """Answer requests; returns None at their end, and a forked row with its report's pipe."""
    pending = b""
    while True:
        while b"\n" not in pending:
            data = os.read(requests, _READ_BYTES)
            if not data:
                return None
            pending += data
        line, _, pending = pending.partition(b"\n")
        row = Row(**json.loads(line))
        _assert_forkable()
        output, said = os.pipe()
        report, reports = os.pipe()
        pid = os.fork()
        if pid == 0:
            _enter(said, (answers, output, report))
            return row, reports
        os.close(said)
        os.close(reports)
        with _Watch(pid, output, report) as watch:
            if not watch.wait(row.seconds, requests):
                return None
            answer = watch.answer()
        with open(answers, "wb", closefd=False) as file:
            file.write(json.dumps(answer).encode() + b"\n")


class _Watch:
    """A row that runs; at the end of the block its process group is gone."""

    def __init__(self, pid: int, output: int, report: int) -> None:
        self._pid, self._output, self._report = pid, output, report
        self._process = os.pidfd_open(pid)
        self._said = b""
        self._is_late = False
        for fd in (output, report):
            os.set_blocking(fd, False)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            self._end()
        for fd in (self._process, self._output, self._report):
            os.close(fd)

    def wait(self, seconds: float, requests: int) -> bool:
        """Wait until the row ends or its time is over; False if the client disconnected."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for fd in (self._process, self._output, requests):
                selector.register(fd, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = {key.fd for key, _ in selector.select(left)}
                if self._output in ready and not self._take():
                    selector.unregister(self._output)
                if self._process in ready:
                    return True
                if requests in ready:  # no request comes before the answer: this is the end
                    return False
        self._is_late = True
        return True

    def answer(self) -> dict[str, Any]:
        """Kill the processes that the row left running; return the report for the client."""
        status = self._end()
        while self._take():
            pass
        report = b""
        with contextlib.suppress(BlockingIOError):
            report = os.read(self._report, _READ_BYTES)
        return {
            "status": None if self._is_late else os.waitstatus_to_exitcode(status),
            "said": self._said.decode(errors="replace"),
            "report": json.loads(report) if report else None,
        }

    def _take(self) -> bool:
        """Read some output; False if there is none now, or none to come."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._output, _READ_BYTES)
        self._said = (self._said + data)[-_SAID_BYTES:]
        return bool(data)

    def _end(self) -> int:
        # Before the wait, while nobody else can have the group's number.
        with contextlib.suppress(ProcessLookupError):  # it has not made its group yet
            os.killpg(self._pid, signal.SIGKILL)
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return status


def _assert_forkable() -> None:
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads: a fork could copy a lock that is held"
    assert "hpcc" not in sys.modules, "rows would run what was loaded before the mutation"


def _enter(said: int, others: tuple[int, ...]) -> None:
    """Become a row: a new session, nothing to read, all output to `said`."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, source in ((0, null), (1, said), (2, said)):
        os.dup2(source, fd)
    for fd in (null, said, *others):
        os.close(fd)


def _run(row: Row, reports: int) -> int:
    recorder = Recorder()
    try:
        code = int(pytest.main(row.arguments, plugins=[recorder]))
    except Exception:
        # After the session: pytest found what the failed test never closed. The session's own exit
        # status counts; a session that did not finish has none.
        if recorder.code is None:
            raise
        traceback.print_exc()
        code = recorder.code
    said = {
        "code": code,
        "collected": recorder.collected,
        "failed": [text[:_DETAIL_CHARS] for text in recorder.failed[:1]],
        "others": [text[:_DETAIL_CHARS] for text in recorder.others[:1]],
        # Afterwards, so that the test sees the modules in the order in which it imports them.
        "broken": _import_problem(row)[:_DETAIL_CHARS],
    }
    os.write(reports, json.dumps(said).encode())
    return code


def _leave(code: int) -> NoReturn:
    """Exit without freeing what the row imported: that would copy the pages shared by the fork."""
    atexit._run_exitfuncs()  # noqa: SLF001  # temporary directories; there is no public name
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import_problem(row: Row) -> str:
    """Return why the mutated module cannot be imported from the mutated file, or ""."""
    if not row.module:
        return ""
    try:
        module = importlib.import_module(row.module)
    except Exception as error:  # noqa: BLE001  # whatever a module's code raises
        return f"{row.module} cannot be imported: {type(error).__name__}: {error}"
    return "" if module.__file__ == row.file else f"{row.module} is of {module.__file__}"


if __name__ == "__main__":
    sys.exit(main())
