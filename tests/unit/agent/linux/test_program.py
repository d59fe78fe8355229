"""Programs that the agent starts have the descriptors that were given, and are reaped in any case."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import Final

import pytest

from hpcc.agent.linux.program import OutputPipe, Program

pytestmark = pytest.mark.timeout(60)

# The program's descriptors have numbers that are among those which they become, in another order.
_LOW_NUMBERS: Final = """
import asyncio, os
from hpcc.agent.linux.program import OutputPipe, Program

async def main():
    one, two = OutputPipe(), OutputPipe()
    os.dup2(one.write_fd, 4)
    os.dup2(two.write_fd, 3)
    argv = ("/bin/sh", "-c", "echo a >&3; echo b >&4")
    await Program(argv, {"PATH": "/usr/bin:/bin"}, (2, 2, 4, 3)).wait()
    print((await one.read(9), await two.read(9)))

while os.open("/dev/null", os.O_RDONLY) < 4:  # numbers that the event loop does not get
    pass
asyncio.run(main())
"""


async def _shell(script: str, *fds: int) -> Program:
    return Program(("/bin/sh", "-c", script), {"PATH": "/usr/bin:/bin"}, fds)


async def _read(pipe: OutputPipe) -> bytes:
    pipe.close_write_end()
    data = b""
    while piece := await pipe.read(1 << 16):
        data += piece
    return data


async def test_each_descriptor_is_where_it_belongs_and_none_of_the_agents_is_open() -> None:
    private = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 900)
    with closing(OutputPipe()) as out, closing(OutputPipe()) as err, closing(OutputPipe()) as third:
        child = await _shell(
            "cat; echo out; echo err >&2; echo third >&3; echo /proc/self/fd/* >&3",
            out.write_fd, err.write_fd, third.write_fd,
        )  # fmt: skip
        assert await _read(out) == b"out\n"
        assert await _read(err) == b"err\n"
        lines = (await _read(third)).split(b"\n")
        assert lines[0] == b"third"
        names = set(lines[1].split())
        assert {b"/proc/self/fd/%d" % fd for fd in range(4)} < names
        assert b"/proc/self/fd/%d" % private not in names
        await child.wait()
        os.close(private)


def test_descriptors_with_low_numbers_do_not_take_each_others_places() -> None:
    # A separate process: what runs this one uses its low numbers.
    done = subprocess.run(
        [sys.executable, "-c", _LOW_NUMBERS], stdout=subprocess.PIPE, check=True, timeout=30
    )
    assert done.stdout == b"(b'a\\n', b'b\\n')\n"


async def test_a_program_is_killed_and_leaves_no_zombie() -> None:
    child = await _shell("while :; do sleep 1; done")
    child.kill()
    await child.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    child.kill()  # does nothing


async def test_a_program_is_reaped_when_its_waiter_was_cancelled() -> None:
    child = await _shell("exec sleep 0.3")
    waiter = asyncio.create_task(child.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    await child.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_a_machine_without_pidfd_waits_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    child = await _shell("exec sleep 0.1")
    await child.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_a_program_has_the_signals_that_python_ignores() -> None:
    with closing(OutputPipe()) as out:
        child = await _shell("kill -PIPE $$; echo survived", out.write_fd, out.write_fd)
        assert await _read(out) == b""
        await child.wait()
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


async def test_what_cannot_be_started_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        Program(("/nonexistent/program",), {}, ())


async def test_a_report_that_is_not_there_is_empty() -> None:
    with closing(OutputPipe()) as pipe:
        assert pipe.read_now(100) == b""
        os.write(pipe.write_fd, b"line")
        assert pipe.read_now(100) == b"line"
