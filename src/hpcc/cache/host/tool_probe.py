"""Probes a tool that holds a compiler: clang-tidy.

A driver is probed by its answers to `-v` and `-print-…`, and by the programs that it runs. Such a
tool takes no flag of a driver in front of `--`, and runs no other program. So its identity is its
own content, its libraries, and what the compiler in it says about itself.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.host.exec_trace import executions

# A key of clang-tidy's configuration. A program that only executes the real one need not know it.
_MARK: Final = b"ExtraArgsBefore"


def ask_tool(
    tool: bytes, real: bytes, question: tuple[bytes, ...], env: Mapping[bytes, bytes]
) -> bytes | None:
    """Return what the compiler inside a tool prints for `-v`; None if the tool is a wrapper.

    `real` is the tool's path with links resolved.

    Raises:
        OSError: it did not run, or failed.
    """
    argv = [tool, *question]
    seen = executions(argv, env=env, cwd=b"/")
    if seen is None:
        if not _holds_mark(real):
            return None
    elif len(seen) != 1 or seen[0].program != _identify(tool):
        return None
    answer = ask(argv, env=env, cwd=b"/")
    if answer.exit_code != 0:
        raise OSError("the tool did not tell about its compiler")
    return answer.stderr


def _identify(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _holds_mark(path: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(_MARK) >= 0
