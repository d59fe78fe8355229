"""A scheduler records refusals in its own trail, and keeps the ends of the workers' chains."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import event_of
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import spool_path
from hpcc.audit.log import SpoolAuditLog
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.verify import verify_trail
from hpcc.cli.main import main
from hpcc.config.private_file import write_private_file
from hpcc.core import HpccError, Isolation, PolicyError, TenantId
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import new_worker_key
from hpcc.ports import SecurityEvent
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.audit_api import AuditClient
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.enrolment import ask_to_enrol
from hpcc.rpc.scheduler.schedulers import Schedulers
from hpcc.worker.base.identity import load_identity_or_none
from hpcc_testkit.farm.audit_rows import KEY, opened, row
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE, TENANT, FarmUnderTest, farm_under_test

SECONDS = 60.0


@asynccontextmanager
async def scheduler(farm: FarmUnderTest) -> AsyncGenerator[Schedulers]:
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"127.0.0.1:{farm.scheduler.port}",
        certificate_pem=peer.certificate_pem,
        name=peer.name,
    ) as channel:
        yield Schedulers((channel,))


def events(farm: FarmUnderTest) -> list[SecurityEvent]:
    index = TrailReader(farm.directory / "scheduler/state/events")
    found = [event_of(r) for r in index.find(Query(kind="event"), oldest_first=True)]
    assert [e.name for e in found[:1]] == ["audit-signing"]
    return found[1:]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - of files that others write
            await asyncio.sleep(0.02)


async def fails(call: Awaitable[object]) -> HpccError:
    with pytest.raises(HpccError) as caught:
        await call
    return caught.value


async def test_each_refusal_is_an_event_with_peer_and_request_and_without_a_secret(
    tmp_path: Path,
) -> None:
    secret = "a-secret-that-must-not-be-in-the-trail"
    async with farm_under_test(tmp_path) as farm, scheduler(farm) as schedulers:
        client = SchedulerClient(schedulers)
        who = {"principal": "ann", "client_version": "t"}
        wrong = client.authenticate(secret=secret, tenant=TENANT, **who)
        assert isinstance(await fails(wrong), UnauthenticatedError)
        foreign = client.authenticate(secret=secret, tenant=TenantId("globex"), **who)
        assert isinstance(await fails(foreign), UnauthenticatedError)
        enrolled = ask_to_enrol(
            schedulers.channel, token=secret, request=new_worker_key()[1], worker_id="rogue"
        )
        assert isinstance(await fails(enrolled), UnauthenticatedError)
        grant = await client.authenticate(secret=farm.tenant_secret, tenant=TENANT, **who)
        other = RouteAsk(tenant=TenantId("globex"), image=IMAGE)
        assert isinstance(await fails(client.route(grant.session, other)), PolicyError)
        await fails(client.route("no-session", RouteAsk(tenant=TENANT, image=IMAGE)))
        found = events(farm)
    assert [(e.name, e.tenant) for e in found] == [
        ("login-refused", ""),
        ("login-refused", ""),
        ("enrol-token-unknown", ""),
        ("foreign-tenant", ""),
    ]
    assert [dict(e.fields).get("claimed") for e in found[:2]] == ["acme", "globex"]
    assert dict(found[2].fields) == {"reason": found[2].name, "worker": "rogue"}
    assert all(re.fullmatch(r"ipv4:127\.0\.0\.1:[0-9]+", e.peer) for e in found)
    assert all(re.fullmatch(r"[0-9a-f]{16}", e.request_id) for e in found)
    assert len({e.request_id for e in found}) == len(found)
    trail = spool_path(tmp_path / "scheduler/state/events").read_bytes()
    assert secret.encode() not in trail
    assert grant.session.encode() not in trail
    verify_trail(tmp_path / "scheduler/state/events")


async def test_a_route_to_an_image_that_the_tenant_may_not_use_is_an_event_of_that_tenant(
    tmp_path: Path,
) -> None:
    from hpcc.core import GuestReuse
    from hpcc.scheduler.tenants.authenticator import Admitted
    from hpcc.scheduler.tenants.table import ImageRule, TenantPolicy

    policy = TenantPolicy(
        tenant=TENANT,
        identity=None,
        images=(ImageRule(IMAGE.digest),),
        minimum_isolation=Isolation.LOCAL_NONE,
        guest_reuse=GuestReuse.TENANT,
    )

    class OneImage:
        async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
            return Admitted(policy, principal, None)

        def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
            return policy if tenant == TENANT else None

        async def watch(self) -> None:
            await asyncio.Event().wait()

    async with (
        farm_under_test(tmp_path, authenticator=OneImage()) as farm,
        scheduler(farm) as schedulers,
    ):
        client = SchedulerClient(schedulers)
        grant = await client.authenticate(
            secret="x", tenant=TENANT, principal="ann", client_version="t"
        )
        await fails(client.route(grant.session, RouteAsk(tenant=TENANT, image=OTHER_IMAGE)))
        (event,) = events(farm)
    assert (event.name, event.tenant) == ("route-refused", TENANT.value)
    assert dict(event.fields) == {"reason": "image", "image": str(OTHER_IMAGE)}


async def test_a_flood_of_refusals_is_counted_and_not_all_written(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, scheduler(farm) as schedulers:
        client = SchedulerClient(schedulers)
        # Together: one a second would all be written.
        await asyncio.gather(
            *(
                fails(
                    client.authenticate(secret="x", tenant=TENANT, principal="a", client_version="")
                )
                for _ in range(60)
            )
        )
        found = events(farm)
    assert 20 <= len(found) < 60


@asynccontextmanager
async def heard(
    farm: FarmUnderTest, directory: Path, key: Ed25519PrivateKey = KEY, rows: int = 0
) -> AsyncGenerator[SpoolAuditLog]:
    """Run a worker with a real trail until the scheduler has received the trail's end."""
    async with opened(directory, key=key) as log:
        for number in range(rows):
            await log.append(row(number))
        async with farm.serving(log):
            yield log


def exported(farm: FarmUnderTest, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return the output of `hpcc scheduler anchors`, while the scheduler runs."""
    config = {
        "keys": str(farm.directory / "scheduler/keys"),
        "state": str(farm.directory / "scheduler/state"),
        "tenant": TENANT.value,
        "tenant_secret": farm.tenant_secret,
        "minimum_isolation": "local/none",
    }
    write_private_file(farm.directory / "s.json", json.dumps(config).encode())
    main(["scheduler", "anchors", "--config", str(farm.directory / "s.json")])
    out = capsys.readouterr().out
    (farm.directory / "anchors").write_text(out)
    return [json.loads(line) for line in out.splitlines()]


async def said(farm: FarmUnderTest, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Wait until the scheduler exports an anchor of so many records."""
    async with asyncio.timeout(SECONDS):
        while True:
            lines = await asyncio.to_thread(exported, farm, capsys)
            if any(line["count"] == count for line in lines):
                return
            await asyncio.sleep(0.1)


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(tmp_path) as farm:
        yield farm


async def test_anchors_of_heartbeats_are_exported_signed_and_find_a_cut_tail(
    farm: FarmUnderTest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    async with heard(farm, trail, rows=5):
        await said(farm, 5, capsys)
    verify = ["audit", "verify", "--directory", str(trail)]
    verify += ["--anchors", str(farm.directory / "anchors"), "--worker", "w1"]
    assert await asyncio.to_thread(main, verify) == 0
    path = spool_path(trail)
    path.write_bytes(path.read_bytes()[:-500])
    assert await asyncio.to_thread(main, verify) == 1
    assert "the end is missing" in capsys.readouterr().err
    # And the scheduler notices when the worker comes back with it.
    async with heard(farm, trail):
        await until(lambda: "audit-chain-cut" in [e.name for e in events(farm)])


async def test_a_worker_that_comes_back_with_another_key_is_an_event(
    farm: FarmUnderTest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with heard(farm, tmp_path / "one", rows=3):
        await said(farm, 3, capsys)
    async with heard(farm, tmp_path / "two", key=Ed25519PrivateKey.generate(), rows=6):
        await until(lambda: "audit-key-changed" in [e.name for e in events(farm)])
        await said(farm, 6, capsys)
    anchors = await asyncio.to_thread(exported, farm, capsys)
    assert len({a["key"] for a in anchors}) == 2
    verify = ["audit", "verify", "--directory", str(tmp_path / "two")]
    verify += ["--anchors", str(farm.directory / "anchors")]
    assert await asyncio.to_thread(main, verify) == 1
    assert "different keys" in capsys.readouterr().err


async def test_an_anchor_with_a_wrong_signature_is_refused_and_an_event(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    async with opened(tmp_path / "trail") as log:
        await log.append(row(1))
        honest = log.signed_anchor

        def forged() -> object:
            return dataclasses.replace(honest(), count=7)

        log.signed_anchor = forged
        async with farm.serving(log):
            await until(lambda: "audit-anchor-refused" in [e.name for e in events(farm)])


async def test_verify_asks_the_schedulers_itself_with_the_workers_certificate(
    farm: FarmUnderTest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    async with heard(farm, trail, rows=5):
        await said(farm, 5, capsys)
    values = {k: str(v) if isinstance(v, Path) else v for k, v in _fields(farm).items()}
    write_private_file(tmp_path / "worker.json", json.dumps(values).encode())
    verify = ["audit", "verify", "--directory", str(trail), "--scheduler"]
    verify += ["--config", str(tmp_path / "worker.json")]
    assert await asyncio.to_thread(main, verify) == 0
    assert "the newest of 5 records" in capsys.readouterr().out
    path = spool_path(trail)
    path.write_bytes(path.read_bytes()[:-500])
    assert await asyncio.to_thread(main, verify) == 1
    assert "the end is missing" in capsys.readouterr().err
    # Only a worker gets an answer: it needs a certificate, and can ask only for its own chain.
    identity = load_identity_or_none(farm.worker_config().keys)
    assert identity is not None
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"127.0.0.1:{farm.scheduler.worker_port}",
        certificate_pem=peer.certificate_pem,
        name=peer.name,
        client=identity.tls,
    ) as channel:
        asked = AuditClient(lambda: Schedulers((channel,))).anchors("w2")
        assert (await fails(asked)).reason == "foreign-worker"


def _fields(farm: FarmUnderTest) -> dict[str, object]:
    config = farm.worker_config()
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
