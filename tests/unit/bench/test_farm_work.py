"""The bench of a scheduler's own code waits for nothing that does not come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

import _farm_work
from _farm_work import Context, Service, Worker
from _measure import BenchError

pytestmark = pytest.mark.timeout(30)


class Refusing:
    """A scheduler that answers one heartbeat of a stream and then refuses it, or ends it."""

    def __init__(self, why: str) -> None:
        self._why = why

    def method(self, path: str) -> Refusing:
        del path
        return self

    async def stream_stream(self, _: object, context: Context) -> None:
        await context.read()
        context.answers.put_nowait(b"answer")
        await context.read()
        if self._why:
            await context.abort("NOT_FOUND", self._why)


@pytest.mark.parametrize(
    ("why", "said"), [("no lease", "no lease"), ("", "of worker w0 has ended")]
)
async def test_a_heartbeat_to_a_stream_that_has_ended_is_an_error(why: str, said: str) -> None:
    worker = Worker(cast("Service", Refusing(why)), "w0", b"")
    await worker.beat(b"first")
    for _ in range(2):
        with pytest.raises(BenchError, match=said):
            await worker.beat(b"later")


async def test_workers_that_joined_keep_their_leases_while_others_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow disk takes longer for a thousand workers than a lease lasts."""
    beats = list[int]()

    class Joined:
        def __init__(self, number: int) -> None:
            self._number = number

        def made(self) -> bytes:
            return b""

        async def beat(self, message: bytes) -> None:
            del message
            beats.append(self._number)

        @staticmethod
        async def joined(_: Any, __: str, number: int) -> Joined:
            return Joined(number)

    monkeypatch.setattr(_farm_work, "Worker", Joined)
    monkeypatch.setattr(_farm_work, "_LEASE_SECONDS", 0.0)
    await Service((), ()).join("", 3)
    assert beats == [0, 0, 1, 0, 1, 2, 0, 1, 2]
