"""Probes a tool that is not a driver: clang-tidy, cppcheck.

A driver is probed by its answers to `-v` and `-print-…`, and by the programs that it runs. Such a
tool takes no flag of a driver in front of `--`, and runs no other program. So its identity is its
own content, its libraries, and what it, or the compiler in it, says about itself.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.host.exec_trace import executions

# A key of clang-tidy's configuration, and one of cppcheck's. A program that only executes the real
# one need not know it.
_MARKS: Final = (b"ExtraArgsBefore", b"productName")


def ask_tool(
    tool: bytes, real: bytes, question: tuple[bytes, ...], env: Mapping[bytes, bytes]
) -> bytes | None:
    """Return what a tool prints about itself; None if it is a wrapper.

    `real` is the tool's path with links resolved.

    Raises:
        OSError: it did not run, or failed.
    """
    argv = [tool, *question]
    seen = executions(argv, env=env, cwd=b"/")
    if seen is None:
        if not _holds_a_mark(real):
            return None
    elif len(seen) != 1 or seen[0].program != _identify(tool):
        return None
    answer = ask(argv, env=env, cwd=b"/")
    if answer.exit_code != 0:
        raise OSError("the tool did not tell about its compiler")
    return answer.stderr + answer.stdout


def _identify(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _holds_a_mark(path: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return any(text.find(mark) >= 0 for mark in _MARKS)
