"""Records which programs a command executes: itself, and every process that it starts.

Problem: an ELF program called `gcc` may execute the real one, with flags from its own variables and
files. Its bytes do not show that, and its answers are those of the real compiler.

Means: ptrace(2), with stops at fork and execve only, so that a compile runs at its speed. A new
thread traces, because the kernel ties a trace to one thread: nobody else waits for its processes,
and they die with it. The traced program starts behind a shell that waits until the trace is set up,
and behind `env`, because a shell drops variables like `G++_ROOT`. The shell says when it runs: the
trace of a process that is still at its execve shows this one too, and all later ones seem to be
others.

No trace is possible where ptrace is forbidden, or without /proc. The answer is None then. A trace
that was begun and has gaps is an error: its commands may do anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.tools import QUERY_SECONDS

# <linux/ptrace.h> and <sys/wait.h>.
_CONT: Final = 7
_SEIZE: Final = 0x4206
_EVENT_EXEC: Final = 4
_FORKS_AND_EXEC: Final = 0x2 | 0x4 | 0x8 | 0x10  # fork, vfork, clone, exec
_EXITKILL: Final = 0x100000
_OWN_OF_ANY_KIND: Final = 0x40000000 | 0x20000000  # __WALL, __WNOTHREAD
_WAIT_THEN_RUN: Final = b'echo && read -r go && exec /usr/bin/env -i "$@" >/dev/null'
_MAX_EXECUTIONS: Final = 256

FileId = tuple[int, int]
"""Device and inode."""


class Execution(NamedTuple):
    """One execve: the process, the file of the program that it then was, and its parent."""

    pid: int
    program: FileId
    parent: int = 0


def executions(
    argv: Sequence[bytes], *, env: Mapping[bytes, bytes], cwd: bytes
) -> tuple[Execution, ...] | None:
    """Return every execve of a command in order, its own first; None if no trace is possible.

    All its processes are killed after `QUERY_SECONDS`, or after `_MAX_EXECUTIONS`.

    Raises:
        OSError: the trace was begun, and did not see everything.
    """
    # `env` takes a program with this character for a variable.
    if sys.platform != "linux" or b"=" in argv[0] or not os.path.exists(b"/proc/self/stat"):
        return None
    variables = [name + b"=" + value for name, value in env.items()]
    trace = _Trace([*variables, *argv], cwd)
    thread = threading.Thread(target=trace.run, name="exec-trace")
    thread.start()
    thread.join()
    if trace.found is None and trace.is_begun:
        raise OSError(errno.EAGAIN, "a trace of what it executes has gaps", argv[0])
    return trace.found


def parent_of(status: bytes) -> int:
    """Return the parent's id of a /proc/PID/stat. The program may have chosen the name in it.

    Raises:
        ValueError, IndexError: the text is not whole.
    """
    return int(status.rpartition(b")")[2].split()[1])


class _Trace:
    """One traced command. `found` and `is_begun` are set by `run`."""

    def __init__(self, words: Sequence[bytes], cwd: bytes) -> None:
        self._words, self._cwd = words, cwd
        self._executed: list[Execution] = []
        self._alive: set[int] = set()
        self._is_over = False
        self.is_begun = False
        self.found: tuple[Execution, ...] | None = None

    def run(self) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self._start()

    def _start(self) -> None:
        process = subprocess.Popen(
            [b"/bin/sh", b"-c", _WAIT_THEN_RUN, b"sh", *self._words],
            env={b"PATH": b"/usr/bin:/bin"},
            cwd=self._cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._alive.add(process.pid)
        timer = threading.Timer(QUERY_SECONDS, self._kill)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdout as said:
                said.read(1)
            self.is_begun = _ptrace(_SEIZE, process.pid, _FORKS_AND_EXEC | _EXITKILL) == 0
            if not self.is_begun:
                self._kill()
            with contextlib.suppress(BrokenPipeError), process.stdin as go:
                go.write(b"\n")
            timer.start()
            is_seen = self._follow()
        finally:
            timer.cancel()
            process.returncode = 0  # it is reaped
        if is_seen:
            self.found = tuple(self._executed[1:]) or None  # the first is `env`

    def _follow(self) -> bool:
        """Let the processes run to their end; tell whether every execve was seen."""
        is_seen = True
        while True:
            try:
                pid, status = os.waitpid(-1, _OWN_OF_ANY_KIND)
            except ChildProcessError:
                return is_seen and not self._is_over
            if not os.WIFSTOPPED(status):
                self._alive.discard(pid)
                continue
            self._alive.add(pid)
            if self._is_over:
                self._kill()
            number, event = os.WSTOPSIG(status), status >> 16
            if event == _EVENT_EXEC:
                is_seen = self._note(pid) and is_seen
            # Only a signal that is on its way is passed on.
            _ptrace(_CONT, pid, 0 if event else number)

    def _note(self, pid: int) -> bool:
        try:
            status = os.stat(b"/proc/%d/exe" % pid)
            with open(b"/proc/%d/stat" % pid, "rb") as file:
                parent = parent_of(file.read())
        except (OSError, ValueError, IndexError):
            return False
        self._executed.append(Execution(pid, (status.st_dev, status.st_ino), parent))
        if len(self._executed) > _MAX_EXECUTIONS:
            self._kill()
            return False
        return True

    def _kill(self) -> None:
        self._is_over = True  # also for processes that appear later
        for pid in tuple(self._alive):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _ptrace(request: int, pid: int, data: int) -> int:
    function = ctypes.CDLL(None, use_errno=True).ptrace
    function.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    function.restype = ctypes.c_long
    return int(function(request, pid, None, data))
