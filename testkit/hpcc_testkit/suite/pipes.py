"""Ends the pipes of a process that a test started and that is gone; a test that leaves one fails.

A pipe that a test leaves is collected as garbage during a later test, which then fails for it. So
this module is a pytest plugin too: it looks at the end of each test and names the one that left it.

One kind is closed and not reported. If a task is cancelled while it starts a process, asyncio
closes the process's transport, and may connect its pipes only then (`_connect_pipes` of
`BaseSubprocessTransport`). In a loop that goes on they are closed at the end of the process.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import unix_events
from collections.abc import Callable, Generator
from typing import Any, Final

import pytest

_NAMES: Final = ("_UnixReadPipeTransport", "_UnixWritePipeTransport")
_opened: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


async def gone(process: asyncio.subprocess.Process) -> int:
    """Wait for the end of a process and drop its pipes; return its exit code.

    A child that it left may hold the other end of its standard output.
    """
    code = await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to drop the pipes of a process that is gone
    return code


def pytest_configure() -> None:
    """Remember each pipe that a loop of this process opens."""
    for name in _NAMES:
        made = getattr(unix_events, name)
        if not hasattr(made, "is_remembered"):
            made.is_remembered, made.__init__ = True, _remembering(made.__init__)


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    def remember(transport: object, *args: object, **more: object) -> None:
        init(transport, *args, **more)
        _opened.add(transport)

    return remember


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Close the pipes whose loop is closed, and fail the test that left one."""
    result = yield
    # Private names: asyncio has no public way to ask whether a pipe is closed.
    left = [pipe for pipe in list(_opened) if pipe._pipe is not None and pipe._loop.is_closed()]  # noqa: SLF001 - see above
    for pipe in left:
        pipe._pipe.close()  # noqa: SLF001 - its loop, which would do so, is closed
        pipe._pipe = None  # noqa: SLF001 - else the garbage collector warns
    open_ones = [pipe for pipe in left if not _was_cancelled(pipe)]
    if open_ones:
        pytest.fail(f"{item.nodeid} left open: {open_ones}")
    return result


def _was_cancelled(pipe: Any) -> bool:  # noqa: ANN401 - a private class of asyncio
    process = getattr(pipe._protocol, "proc", None)  # noqa: SLF001 - no public way
    return process is not None and bool(process._closed)  # noqa: SLF001 - no public way
