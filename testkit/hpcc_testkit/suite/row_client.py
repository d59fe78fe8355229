"""Starts `row_server.py` and asks it to run rows."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

_PROGRAM: Final = Path(__file__).with_name("row_server.py")
# Bounds the start of the server on a busy machine, and the time from a row's end to its answer.
_START_SECONDS: Final = 60
_TESTS_FAILED: Final = 1


class RowResult(NamedTuple):
    """How a row ended."""

    is_noticed: bool
    """Whether a test of the row ran and failed."""
    reason: str
    """Why it is not noticed; empty if it is."""
    said: str
    """The end of what it printed."""


class RowServer:
    """A server process for the rows of one copy; started by the first row, ended by `close`."""

    def __init__(self, root: Path, directory: Path, env: Mapping[str, str]) -> None:
        """Prepare for tests of `root`; `directory` is for the server's own files."""
        self._root, self._directory, self._env = root, directory, env
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, arguments: list[str], *, module: str, file: Path, seconds: float) -> RowResult:
        """Run pytest with `arguments` in a forked process.

        Args:
            arguments: pytest's.
            module: the mutated module, or an empty string.
            file: the mutated file.
            seconds: how long the row may take.

        Raises:
            subprocess.TimeoutExpired: the row did not end; its process group was killed.
            RuntimeError: the server ended or gave no answer.
        """
        request = {"arguments": arguments, "module": module, "file": str(file), "seconds": seconds}
        answer = self._ask(json.dumps(request).encode() + b"\n", seconds)
        if answer["status"] is None:
            raise subprocess.TimeoutExpired(["pytest", *arguments], seconds, answer["said"])
        reason = _why_not(answer["status"], answer["report"])
        return RowResult(not reason, reason, answer["said"])

    def close(self) -> None:
        """End the server and the row that it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        with process:  # closing its stdin tells it to end
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def _ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], seconds + _START_SECONDS)
            line = process.stdout.readline() if ready else b""
        except BaseException:  # a later row must not read this one's answer
            self.close()
            raise
        if not line.endswith(b"\n"):
            self.close()
            raise RuntimeError(f"the row server gave no answer:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def _log(self) -> Path:
        return self._directory / "row-server.log"

    def _start(self) -> subprocess.Popen[bytes]:
        self._directory.mkdir(exist_ok=True)
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), str(self._root), str(self._directory)],
                cwd=self._root, env=self._env, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip


def _why_not(status: int, report: dict[str, Any] | None) -> str:
    """Return why a row that ended this way does not count as noticed; "" if it does."""
    if report is None:
        return f"it ended with status {status} before pytest did"
    if report["broken"]:
        return f"the mutation is no mutation: {report['broken']}"
    if report["others"]:
        return f"what failed is no test: {report['others'][0]}"
    if not report["failed"]:
        return f"no test failed of {report['collected']}"
    if report["code"] != _TESTS_FAILED or status != _TESTS_FAILED:
        return f"pytest returned {report['code']} and the process {status}"
    return ""
