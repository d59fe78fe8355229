"""What a scheduler's answer may make of a client: nothing beyond the bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from hpcc._proto import observe_pb2 as pb
from hpcc.core import TenantId
from hpcc.routing.load import MAX_SAMPLES, Load
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.observe import WORKERS_AT_ONCE, FarmStatus, ask_all, ask_history
from hpcc.rpc.scheduler.schedulers import Schedulers
from hpcc.rpc.scheduler.worker_detail import MAX_COMPILERS, MAX_IMAGES, MAX_PLACES, ask_worker


def answering(*answers: Message) -> Schedulers:
    """Return one scheduler that gives these answers in turn, the last one again and again."""
    left = list(answers)

    async def call(*_: object) -> Message:
        return left.pop(0) if len(left) > 1 else left[0]

    one = SimpleNamespace(call=call)
    return cast("Schedulers", SimpleNamespace(each=lambda: (one,), call=call))


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
        [pb.StatusResponse(tenants=[pb.TenantStatus(routes=[pb.RouteCount(count=1)] * 1025)])],
    ],
    ids=["again", "backwards", "empty", "many", "name", "tenants", "routes"],
)
async def test_a_scheduler_that_repeats_or_exceeds_is_no_answer(
    answers: list[pb.StatusResponse],
) -> None:
    found = await asked(*answers)
    assert isinstance(found, UnavailableError)
    assert found.reason == "bad-status"


async def test_an_hour_is_in_order_has_finite_times_and_is_no_longer_than_an_hour() -> None:
    odd = [
        pb.LoadSample(at=20.0, capacity=4, running=9),
        pb.LoadSample(at=float("nan")),
        pb.LoadSample(at=10.0, queued=3),
        pb.LoadSample(at=1e300),
    ]
    answer = answering(pb.HistoryResponse(samples=odd))
    found = await ask_history(answer, "session", TenantId("acme"))
    assert [s.at for s in found] == [0.0, 10.0, 20.0, float(1 << 33)]
    assert found[2].load == Load(capacity=4, running=4), "no worker is busier than full"
    endless = answering(pb.HistoryResponse(samples=[pb.LoadSample(at=1.0)] * (MAX_SAMPLES + 1)))
    assert await ask_history(endless, "session", TenantId("acme")) == ()


@pytest.mark.parametrize(
    "answer",
    [
        pb.WorkerResponse(images=[pb.WorkerImage()] * (MAX_IMAGES + 1)),
        pb.WorkerResponse(places=[pb.TenantPlaces()] * (MAX_PLACES + 1)),
        pb.WorkerResponse(images=[pb.WorkerImage(compilers=["gcc"] * (MAX_COMPILERS + 1))]),
    ],
    ids=["images", "places", "compilers"],
)
async def test_a_worker_of_more_than_its_bounds_is_no_answer(answer: pb.WorkerResponse) -> None:
    with pytest.raises(UnavailableError, match="too much"):
        await ask_worker(answering(answer), "session", TenantId("acme"), "w1")


async def test_texts_of_a_worker_are_such_that_a_terminal_has_them() -> None:
    image = pb.WorkerImage(digest="\x1b[2J" + "x" * 900, compilers=["g\ncc"])
    one = answering(pb.WorkerResponse(images=[image], places=[pb.TenantPlaces(tenant="a\rb")]))
    found = await ask_worker(one, "session", TenantId("acme"), "w1")
    assert found.images[0].digest.isprintable()
    assert len(found.images[0].digest) < 200
    assert found.images[0].compilers == ("g\\ncc",)
    assert found.places[0].tenant == "a\\rb"
