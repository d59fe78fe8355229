"""A worker's endpoint lies to a daemon, which writes only results signed for its request.

Behind the endpoint may be a compromised process, a proxy, or a worker that does not check its
store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import (
    Digest,
    GuestReuse,
    Isolation,
    RemoteFailure,
    RemoteInput,
    RemoteOutcome,
    RemoteRequest,
    RemoteResult,
    TenantId,
)
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import FarmConnection, connect_farm
from hpcc.identity.keys import load_or_create_signing_key
from hpcc.identity.results import ResultSigner
from hpcc.ports import SystemClock
from hpcc.reapi.result import ResultOutput, ResultRecord
from hpcc.reapi.signed import ResultScope
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.scheduler.api import Route
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test

Lie = Callable[[ResultRecord], ResultRecord]


@dataclass
class Lair:
    """A farm whose answers to the daemon pass through `lie`."""

    farm: FarmUnderTest
    connection: FarmConnection
    dispatcher: Dispatcher
    monkeypatch: pytest.MonkeyPatch
    request: RemoteRequest
    action: Digest | None = None
    seen: list[ResultRecord] = field(default_factory=list)

    def lies(self, lie: Lie) -> None:
        for name in ("execute", "cached_result"):
            self.monkeypatch.setattr(ReapiClient, name, self._lying(name, lie))

    def _lying(self, name: str, lie: Lie) -> Callable[..., object]:
        honest = getattr(ReapiClient, name)

        async def answer(
            client: ReapiClient, action: Digest, *rest: object, **more: object
        ) -> object:
            said = await honest(client, action, *rest, **more)
            record, is_cached = said if name == "execute" else (said, True)
            self.action = action
            self.seen.append(record)
            told = lie(record)
            return (told, is_cached) if name == "execute" else told

        return answer

    async def compile(self) -> RemoteOutcome:
        return await self.dispatcher.compile(self.connection, self.request)

    def routed(self, **rules: object) -> None:
        """Make the scheduler's route carry these tenant rules."""
        honest = SchedulerClient.route

        async def route(client: SchedulerClient, *asked: object) -> Route:
            return replace(await honest(client, *asked), **rules)  # type: ignore[arg-type]  # by name

        self.monkeypatch.setattr(SchedulerClient, "route", route)

    def signer(self) -> ResultSigner:
        """Return the worker's own signer, which signs whatever a compromised worker wants."""
        key = load_or_create_signing_key(self.farm.directory / "worker/keys/result-signing.key")
        return ResultSigner(key, self.farm.clock)

    def signed(self, record: ResultRecord, **scope: object) -> ResultRecord:
        assert self.action is not None
        asked = ResultScope(tenant=TENANT, action=self.action, principal="ann")
        return self.signer().sign(record, replace(asked, **scope))  # type: ignore[arg-type]  # by name


@asynccontextmanager
async def lair_in(
    directory: Path, monkeypatch: pytest.MonkeyPatch, **worker_fields: object
) -> AsyncGenerator[Lair]:
    source = directory / "a.c"
    source.write_text("int x;\n")
    request = RemoteRequest(
        argv=("sh", "-c", "cp a.c a.o; cp a.c b.o"),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        inputs=(RemoteInput("a.c", str(source), False),),
        outputs=("a.o", "b.o"),
    )
    clock = SystemClock()
    dispatcher = Dispatcher(clock, timeout_seconds=20.0, version="t", build_id="b")
    async with (
        farm_under_test(directory, **worker_fields) as farm,
        farm.serving(),
        connect_farm(farm.farm(), clock, "t") as connection,
    ):
        yield Lair(farm, connection, dispatcher, monkeypatch, request)
    dispatcher.close()


@pytest.fixture
async def lair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Lair]:
    async with lair_in(tmp_path, monkeypatch) as lair:
        yield lair


async def refused(lair: Lair, lie: Lie) -> str:
    """Compile twice, as an execution and as a hit; return the reason with which both fail."""
    lair.lies(lie)
    reasons = set()
    for _ in range(2):
        outcome = await lair.compile()
        assert isinstance(outcome, RemoteFailure), outcome
        reasons.add(outcome.reason)
    assert len(lair.seen) == 2
    (reason,) = reasons
    return reason


async def test_a_front_that_does_not_lie_is_believed(lair: Lair) -> None:
    lair.lies(lambda record: record)
    for is_cached in (False, True):
        outcome = await lair.compile()
        assert isinstance(outcome, RemoteResult), outcome
        assert outcome.is_cached is is_cached
        assert {o.path: o.data for o in outcome.outputs} == {"a.o": b"int x;\n", "b.o": b"int x;\n"}


EVIL = Digest.of(b"evil")
CHANGES: dict[str, Lie] = {
    "exit-code": lambda r: replace(r, exit_code=1),
    "stdout": lambda r: replace(r, stdout=b"evil"),
    "stderr": lambda r: replace(r, stderr=b"evil"),
    "content": lambda r: replace(
        r,
        outputs=tuple(replace(o, digest=EVIL) for o in r.outputs),
        inline={o.path: b"evil" for o in r.outputs},
    ),
    "mode": lambda r: replace(r, outputs=tuple(replace(o, is_executable=True) for o in r.outputs)),
    "missing-output": lambda r: replace(r, outputs=r.outputs[:1]),
    "guest": lambda r: replace(r, guest_id="another"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_front_that_changes_a_signed_result_is_not_believed(
    lair: Lair, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await refused(lair, CHANGES[name]) == "result-signature"
    assert "result-signature" in caplog.text
    assert "w1" in caplog.text


async def test_inlined_bytes_that_are_not_the_signed_outputs_are_not_written(lair: Lair) -> None:
    lie: Lie = lambda r: replace(r, inline={o.path: b"evil" for o in r.outputs})  # noqa: E731 - one of many
    assert await refused(lair, lie) == "digest-mismatch"


async def test_a_front_that_sends_an_unsigned_result_is_not_believed(lair: Lair) -> None:
    assert await refused(lair, lambda r: replace(r, signature=None)) == "result-unsigned"


async def test_a_result_of_a_key_that_the_scheduler_does_not_list_is_not_believed(
    lair: Lair,
) -> None:
    thief = ResultSigner(Ed25519PrivateKey.generate(), lair.farm.clock)

    def lie(record: ResultRecord) -> ResultRecord:
        assert lair.action is not None
        return thief.sign(record, ResultScope(tenant=TENANT, action=lair.action, principal="ann"))

    assert await refused(lair, lie) == "result-key"


@pytest.mark.parametrize(
    "scope",
    [{"tenant": TenantId("globex")}, {"action": EVIL}, {"principal": "mallory"}],
    ids=["tenant", "action", "principal"],
)
async def test_a_true_result_of_another_tenant_action_or_principal_is_not_believed(
    lair: Lair, scope: dict[str, object]
) -> None:
    assert await refused(lair, lambda r: lair.signed(r, **scope)) == "result-signature"


async def test_a_true_result_of_another_image_is_not_believed(lair: Lair) -> None:
    other = "sha256:" + "cd" * 32
    assert await refused(lair, lambda r: lair.signed(replace(r, image=other))) == "result-image"


async def test_a_true_result_with_files_that_nobody_asked_for_is_not_written(lair: Lair) -> None:
    def lie(record: ResultRecord) -> ResultRecord:
        return lair.signed(replace(record, outputs=(ResultOutput("../.bashrc", EVIL),)))

    assert await refused(lair, lie) == "foreign-result"


async def test_a_true_result_below_the_tenants_minimum_is_not_believed(lair: Lair) -> None:
    lair.routed(minimum_isolation=Isolation.QEMU_TCG)
    assert await refused(lair, lair.signed) == "result-isolation"


async def test_a_true_result_of_a_guest_that_served_more_people_than_allowed_is_not_believed(
    lair: Lair,
) -> None:
    lair.routed(guest_reuse=GuestReuse.PRINCIPAL)
    shared: Lie = lambda r: lair.signed(replace(r, reuse=GuestReuse.TENANT))  # noqa: E731 - one of many
    assert await refused(lair, shared) == "result-reuse"


async def test_a_true_failure_is_no_hit(lair: Lair) -> None:
    """A failed execution is reported as it is. As a cache hit it is refused: workers cache no failure."""
    lair.lies(lambda r: lair.signed(replace(r, exit_code=1)))
    outcome = await lair.compile()
    assert isinstance(outcome, RemoteResult), outcome
    assert (outcome.exit_code, outcome.is_cached) == (1, False)
    outcome = await lair.compile()
    assert isinstance(outcome, RemoteFailure), outcome
    assert outcome.reason == "result-failed"


async def test_many_compiles_ask_for_a_key_once(lair: Lair) -> None:
    asked = 0
    honest = lair.connection._client.result_key

    async def counted(*args: object) -> object:
        nonlocal asked
        asked += 1
        return await honest(*args)  # type: ignore[arg-type]  # as given

    lair.monkeypatch.setattr(lair.connection._client, "result_key", counted)
    async with asyncio.TaskGroup() as group:
        outcomes = [group.create_task(lair.compile()) for _ in range(8)]
    assert all(isinstance(o.result(), RemoteResult) for o in outcomes)
    assert asked == 1
