"""What a scheduler's answer may make of a client: nothing beyond the bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc._proto import observe_pb2 as pb
from hpcc.core import TenantId
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.observe import WORKERS_AT_ONCE, FarmStatus, ask_all
from hpcc.rpc.scheduler.schedulers import Schedulers


def answering(*answers: pb.StatusResponse) -> Schedulers:
    """Return one scheduler that gives these answers in turn, the last one again and again."""
    left = list(answers)

    async def call(*_: object) -> pb.StatusResponse:
        return left.pop(0) if len(left) > 1 else left[0]

    one = SimpleNamespace(call=call)
    return cast("Schedulers", SimpleNamespace(each=lambda: (one,)))


async def asked(*answers: pb.StatusResponse) -> Any:
    (found,) = await ask_all(answering(*answers), "session", TenantId("acme"))
    return found


def page(*names: str, has_more: bool = False) -> pb.StatusResponse:
    workers = [pb.WorkerStatus(worker_id=name) for name in names]
    return pb.StatusResponse(workers=workers, has_more=has_more)


async def test_pages_are_put_together() -> None:
    found = await asked(page("w1", "w2", has_more=True), page("w3"))
    assert isinstance(found, FarmStatus)
    assert [w.worker_id for w in found.workers] == ["w1", "w2", "w3"]


async def test_texts_and_numbers_are_such_that_json_and_a_terminal_have_them() -> None:
    odd = pb.WorkerStatus(
        worker_id="w1", endpoint="\x1b[2Jhost" + "x" * 900, lost_guests=float("nan"),
        lease_seconds=float("inf"), drain="asleep", drain_seconds=float("-inf"),
        drain_by="o\n" * 999,
    )  # fmt: skip
    found = await asked(pb.StatusResponse(workers=[odd], version="1\n2"))
    assert found.version == "12"
    (worker,) = found.workers
    assert len(worker.endpoint) <= 300
    assert worker.endpoint.isprintable()
    assert (worker.lost_guests, worker.lease_seconds) == (0.0, 0.0)
    assert (worker.drain, worker.drain_seconds) == ("draining", 0.0)
    assert worker.drain_by == "o" * 150


@pytest.mark.parametrize(
    "answers",
    [
        [page("w1", has_more=True), page("w1", has_more=True)],
        [page("w2", has_more=True), page("w1")],
        [page("w1", has_more=True), page(has_more=True)],
        [page(*(f"w{n}" for n in range(WORKERS_AT_ONCE + 1)))],
        [page("../w1")],
        [pb.StatusResponse(tenants=[pb.TenantStatus(tenant="t")] * 1025)],
    ],
    ids=["again", "backwards", "empty", "many", "name", "tenants"],
)
async def test_a_scheduler_that_repeats_or_exceeds_is_no_answer(
    answers: list[pb.StatusResponse],
) -> None:
    found = await asked(*answers)
    assert isinstance(found, UnavailableError)
    assert found.reason == "bad-status"
