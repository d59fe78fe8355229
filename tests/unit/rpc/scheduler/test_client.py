"""What a dispatcher takes from a scheduler's answer."""

from __future__ import annotations

from typing import Any

import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import ImageDigest, ImageRef, TenantId
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import MAX_ROUTES, MAX_SLOTS, Route, RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import Schedulers

ASK = RouteAsk(
    tenant=TenantId("acme"), image=ImageRef("gcc", ImageDigest("sha256:" + "ab" * 32)),
    minimum_isolation=None, failed_generation=0, client_key=b"k" * 32, wanted=8,
)  # fmt: skip


def answer(**fields: object) -> pb.RouteResponse:
    known: dict[str, Any] = {
        "endpoint": "host:1", "worker_certificate": b"c", "token": "t", "generation": 1,
        "isolation": "qemu/tcg", "worker_id": "w1", "principal": "ann", "guest_reuse": "tenant",
        "minimum_isolation": "qemu/tcg", "slots": 2,
    }  # fmt: skip
    return pb.RouteResponse(**{**known, **fields})


async def route(said: pb.RouteResponse, ask: RouteAsk = ASK) -> Route:
    class Saying(Schedulers):
        def __init__(self) -> None:
            pass

        async def call(self, *_: object) -> pb.RouteResponse:
            return said

    return await SchedulerClient(Saying()).route("session", ask)


BAD = {
    "endpoint": "no port", "worker_certificate": b"c" * (17 << 10), "token": "two words",
    "isolation": "none such", "worker_id": "w" * 129, "guest_reuse": "always",
    "minimum_isolation": "",
}  # fmt: skip


@pytest.mark.parametrize("field", BAD)
async def test_an_impossible_first_route_is_refused(field: str) -> None:
    with pytest.raises(UnavailableError):
        await route(answer(**{field: BAD[field]}))


@pytest.mark.parametrize("field", BAD)
async def test_a_further_route_that_is_not_understood_is_left_out(field: str) -> None:
    bad = answer(**{"worker_id": "w2", field: BAD[field]})
    said = answer(more=[bad, answer(worker_id="w3")])
    assert [r.worker_id for r in (await route(said)).more] == ["w3"]


async def test_an_answer_is_bounded() -> None:
    more = [answer(worker_id=f"w{n}", slots=(1 << 32) - 1) for n in range(200)]
    found = await route(answer(slots=(1 << 32) - 1, more=more))
    assert len(found.more) == MAX_ROUTES - 1
    assert {r.slots for r in (found, *found.more)} == {MAX_SLOTS}


async def test_who_asked_for_one_route_takes_one() -> None:
    ask = RouteAsk(
        tenant=ASK.tenant, image=ASK.image, minimum_isolation=None, failed_generation=0,
        client_key=b"k" * 32,
    )  # fmt: skip
    assert (await route(answer(more=[answer(worker_id="w2")]), ask)).more == ()
