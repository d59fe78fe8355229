"""QEMU's control channel: answers are bounded, and one reader with one error reads them."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import IntegrityError
from hpcc.runtime.qemu.qmp import MAX_LINE_BYTES, Qmp

GREETING = b'{"QMP": {}}\n'
OK = b'{"return": {}}\n'


async def prepared(said: bytes) -> list[dict[str, object]]:
    """Make QEMU send all its answers at once and hang up; return the commands that it got."""
    ours, theirs = socket.socketpair()
    control = Qmp(ours)
    loop = asyncio.get_running_loop()
    theirs.setblocking(False)
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:

            async def speak() -> None:
                await loop.sock_sendall(theirs, said)
                theirs.shutdown(socket.SHUT_WR)

            group.create_task(speak())
            await control.prepare()
            await control.call("migrate", {"uri": "file:x"})
            await control.finish_migration()
        got = theirs.recv(1 << 16)
    finally:
        control.close()
        theirs.close()
    return [json.loads(line) for line in got.splitlines()]


def failure_of(group: BaseExceptionGroup) -> BaseException:
    (first, *_) = group.exceptions
    return failure_of(first) if isinstance(first, BaseExceptionGroup) else first


async def failing(said: bytes) -> BaseException:
    with pytest.raises(BaseExceptionGroup) as caught:
        await prepared(said)
    return failure_of(caught.value)


async def test_a_migration_is_awaited_and_events_are_skipped() -> None:
    event = b'{"event": "STOP", "data": {}}\n'
    running = b'{"return": {"status": "active"}}\n'
    done = b'{"return": {"status": "completed"}}\n'
    commands = await prepared(GREETING + OK + event + OK + event + OK + running + event + done)
    assert [c["execute"] for c in commands] == [
        "qmp_capabilities", "migrate-set-capabilities", "migrate", "query-migrate", "query-migrate",
    ]  # fmt: skip
    assert commands[1]["arguments"] == {
        "capabilities": [{"capability": "x-ignore-shared", "state": True}]
    }


@pytest.mark.parametrize(
    "said",
    [
        b"junk\n",
        b"[1]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 60_000 + b"\n",
        b"x" * (2 * MAX_LINE_BYTES),
    ],
)
async def test_what_is_no_answer_is_refused(said: bytes) -> None:
    assert isinstance(await failing(said), IntegrityError | OSError)
    assert isinstance(await failing(GREETING + said), IntegrityError | OSError)


async def test_a_refusal_and_a_failed_migration_are_told() -> None:
    error = b'{"error": {"class": "GenericError", "desc": "no such file"}}\n'
    assert "no such file" in str(await failing(GREETING + OK + OK + error))
    failed = b'{"return": {"status": "failed", "error-desc": "bad section"}}\n'
    assert "bad section" in str(await failing(GREETING + OK + OK + OK + failed))


async def test_a_hang_up_is_an_error_of_the_connection() -> None:
    for said in (b"", GREETING, GREETING + OK + OK + OK):
        assert isinstance(await failing(said), ConnectionResetError)


@given(said=st.binary(max_size=200), is_greeted=st.booleans())
def test_any_bytes_end_in_a_documented_error(said: bytes, *, is_greeted: bool) -> None:
    caught = asyncio.run(failing((GREETING if is_greeted else b"") + said))
    assert isinstance(caught, IntegrityError | OSError)
