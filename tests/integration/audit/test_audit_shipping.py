"""A worker ships its trail to a scheduler's database in order, once, and waits while it is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.cursor import TrailCursor
from hpcc.audit.verify import verify_trail
from hpcc.core import CallerError, HpccError, InfrastructureError, IntegrityError
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import new_worker_key
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import ClientTls, open_channel
from hpcc.rpc.scheduler.audit_api import AuditClient, AuditPlace
from hpcc.rpc.scheduler.enrolment import ask_to_enrol
from hpcc.rpc.scheduler.schedulers import Schedulers
from hpcc.scheduler.audit.schema import AUDIT_SQL
from hpcc.scheduler.serve import open_enrolment
from hpcc.worker.audit.shipper import Shipper
from hpcc_testkit.farm.audit_rows import SMALL, made, opened, row, written
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.services.postgres import PrivatePostgres, missing_or_none, private_postgres

SECONDS = 100.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivatePostgres]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with private_postgres() as cluster:
        cluster.make_database("audit")
        cluster.sql("audit", AUDIT_SQL)
        cluster.sql("audit", "CREATE ROLE scheduler LOGIN; GRANT hpcc_audit_writer TO scheduler")
        yield cluster


@asynccontextmanager
async def client_of(farm: FarmUnderTest) -> AsyncGenerator[AuditClient]:
    """Return the audit client of an enrolled worker, w1."""
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_enrolment(farm.scheduler_config, farm.clock) as enrolment:
        token = await enrolment.new_token("w1", 600.0)
    key, request = new_worker_key()
    pinned = {"certificate_pem": peer.certificate_pem, "name": peer.name}
    async with open_channel(f"127.0.0.1:{farm.scheduler.port}", **pinned) as channel:
        grant, port = await ask_to_enrol(channel, token=token, request=request, worker_id="w1")
    own = ClientTls(key, grant.certificate_pem)
    async with open_channel(f"127.0.0.1:{port}", **pinned, client=own) as channel:
        schedulers = Schedulers((channel,))
        yield AuditClient(lambda: schedulers)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - of what others write
            await asyncio.sleep(0.05)


async def refusal_of(client: AuditClient, first: int, data: Sequence[bytes]) -> HpccError:
    with pytest.raises(HpccError) as caught:
        await client.append("w1", first, data)
    return caught.value


async def executed(farm: FarmUnderTest, numbers: range) -> None:
    async with farm.client() as client:
        for number in numbers:
            blobs = made(f"echo {number} > a.o")
            await client.upload(blobs)
            await client.execute(blobs[-1].digest, ["a.o"])


async def test_a_build_is_in_the_database_and_survives_its_being_away(
    cluster: PrivatePostgres, tmp_path: Path
) -> None:
    # Not by psql: gRPC does not like a fork beside its threads.
    owner = await asyncpg.connect(cluster.url("audit"))

    async def kept(count: int) -> None:
        async with asyncio.timeout(SECONDS):
            statement = "SELECT count(*) FROM hpcc_audit.record"
            while await owner.fetchval(statement) < count:  # noqa: ASYNC110 - another's rows
                await asyncio.sleep(0.05)

    trail, url = tmp_path / "trail", cluster.url("audit", "scheduler")
    async with (
        farm_under_test(tmp_path, audit_database=url, audit_sink="scheduler", audit=trail) as farm,
        opened(trail, limits=SMALL) as log,
        farm.serving(log),
    ):
        await executed(farm, range(3))
        await kept(3)
        await owner.execute("ALTER ROLE scheduler NOLOGIN")
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'scheduler'"
        )
        await executed(farm, range(3, 6))
        assert log.anchor[0] >= 6, "the spool holds what the database lacks"
        assert await owner.fetchval("SELECT count(*) FROM hpcc_audit.record") == 3
        await owner.execute("ALTER ROLE scheduler LOGIN")
        await kept(6)
    rows = "SELECT DISTINCT tenant FROM hpcc_audit.record WHERE kind = 'row'"
    assert [r["tenant"] for r in await owner.fetch(rows)] == ["acme"]
    await owner.close()
    assert verify_trail(trail).count >= 6


async def test_a_peer_that_sends_no_chain_is_refused_and_leaves_an_event(
    cluster: PrivatePostgres, tmp_path: Path
) -> None:
    cluster.make_database("hostile")
    cluster.sql("hostile", AUDIT_SQL)
    await written(tmp_path / "trail", 6)
    data = TrailCursor(tmp_path / "trail").read(0, limit=100, max_bytes=1 << 20)
    url = cluster.url("hostile", "scheduler")
    async with farm_under_test(tmp_path, audit_database=url) as farm, client_of(farm) as client:
        assert await client.append("w1", 0, ()) == AuditPlace(0, is_empty=True)
        attacks: list[tuple[int, list[bytes]]] = [
            (0, [data[1]]),  # reordered
            (0, [data[0], data[2]]),  # a gap
            (0, [data[0].replace(b"tenant-0", b"tenant-1")[:-1]]),  # cut
            (0, [data[0].replace(b'"worker":"w1"}', b'"worker":"w2"}')]),  # another's
            (0, [data[0].replace(b'"format":1', b'"format": 1')]),  # not canonical
            (0, [data[0].replace(b'"kind":"row"', b'"kind":"event"')]),
            (0, [data[0].replace(b'"exit_code":0', b'"exit_code":"0"')]),
            (0, [data[0].replace(b'"tenant":"tenant-0"', b'"tenant":["x"]')]),
            (0, [b""]),
            (0, [b"[]"]),
            (0, [b"[" * 100_000]),
            (0, [data[0].replace(b'"duration_seconds":1.5', b'"duration_seconds":NaN')]),
        ]
        for first, batch in attacks:
            error = await refusal_of(client, first, batch)
            assert error.reason in {"audit-damaged", "audit-gap"}, (batch[0][:80], error)
        assert (await client.append("w1", 0, data[:3])).next == 3
        assert (await refusal_of(client, 4, data[4:])).reason == "audit-gap"
        changed = data[2].replace(b"principal-2", b"principal-9")
        assert (await refusal_of(client, 2, [changed])).reason == "audit-damaged"
        assert (await refusal_of(client, 0, [b"x"] * 1001)).reason == "bad-request"
        with pytest.raises(HpccError) as caught:
            await client.append("w2", 0, data)  # in another worker's name
        assert caught.value.reason == "foreign-worker"
        assert (await client.append("w1", 0, data)).next == 6
    from hpcc.audit.base.query import Query
    from hpcc.audit.lookup.reader import TrailReader

    index = TrailReader(tmp_path / "scheduler/state/events")
    names = [r.body["name"] for r in index.find(Query(kind="event"))]
    assert set(names) == {"audit-signing", "audit-refused", "foreign-worker"}


async def test_a_scheduler_without_a_database_says_so(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, client_of(farm) as client:
        assert (await refusal_of(client, 0, ())).reason == "no-audit-sink"


class Sink:
    """A receiver in memory that can be unreachable, refuse, or have more records than the trail."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.first = 0
        self.failure: HpccError | None = None
        self.calls = 0

    async def append(self, worker_id: str, first: int, records: Sequence[bytes]) -> AuditPlace:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        if records:
            if not self.records:
                self.first = first
            following = self.first + len(self.records)
            if first > following:
                raise IntegrityError("gap", reason="audit-gap")
            known = self.records[first - self.first :]
            if any(a != b for a, b in zip(known, records, strict=False)):
                raise IntegrityError("another record", reason="audit-damaged")
            self.records += records[following - first :]
        return AuditPlace(self.first + len(self.records), not self.records)


@asynccontextmanager
async def shipping(shipper: Shipper) -> AsyncGenerator[None]:
    task = asyncio.Task(shipper.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_sink_that_is_down_fills_the_spool_stops_new_work_and_all_recovers(
    tmp_path: Path,
) -> None:
    limits = SpoolLimits(segment_bytes=6000, max_bytes=60_000)
    sink = Sink()
    sink.failure = InfrastructureError("away", reason="audit-sink")
    async with farm_under_test(tmp_path) as farm, opened(tmp_path / "trail", limits=limits) as log:
        shipper = Shipper(
            log, TrailCursor(tmp_path / "trail"), sink, worker="w1", clock=SystemClock()
        )
        log.hold_for(lambda: shipper.acknowledged)
        async with farm.serving(log), farm.client() as client, shipping(shipper):
            blobs = made("echo 1 > a.o")
            await client.upload(blobs)
            reason = ""
            for number in range(200):
                with suppress(InfrastructureError):
                    await log.append(row(number))
                try:
                    log.require_room()
                except InfrastructureError:
                    break
            with pytest.raises(HpccError) as caught:
                await client.execute(blobs[-1].digest, ["a.o"])
            reason = caught.value.reason
            assert reason == "audit-full"
            assert await log.retire() == 0
            sink.failure = None
            await until(lambda: shipper.acknowledged == log.anchor[0])
            assert await log.retire() > 0
            await client.execute(blobs[-1].digest, ["a.o"])
            await until(lambda: shipper.acknowledged == log.anchor[0])
    assert len(sink.records) == verify_trail(tmp_path / "trail").count


async def test_an_empty_sink_begins_with_the_first_record_that_is_kept(tmp_path: Path) -> None:
    await written(tmp_path, 20)
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    sink = Sink()
    async with opened(tmp_path, limits=limits) as log:
        while await log.retire():
            pass
        shipper = Shipper(log, TrailCursor(tmp_path), sink, worker="w1", clock=SystemClock())
        async with shipping(shipper):
            await until(lambda: shipper.acknowledged == log.anchor[0])
    assert sink.first == verify_trail(tmp_path).first > 0


@pytest.mark.parametrize("is_ahead", [True, False])
async def test_a_sink_that_is_ahead_or_refuses_is_an_event_and_asked_again(
    tmp_path: Path, *, is_ahead: bool
) -> None:
    from hpcc.audit.base.query import Query
    from hpcc.audit.lookup.reader import TrailReader

    sink = Sink()
    if is_ahead:
        sink.records = [b"x"] * 50
    else:
        sink.failure = CallerError("no", reason="no-audit-sink")
    async with opened(tmp_path) as log:
        await log.append(row(0))
        shipper = Shipper(log, TrailCursor(tmp_path), sink, worker="w1", clock=SystemClock())
        async with shipping(shipper):
            await until(lambda: sink.calls > 1)
        assert shipper.acknowledged == 0
    index = TrailReader(tmp_path)
    (event,) = index.find(Query(kind="event"))
    assert event.body["name"] == "audit-sink-refused"
    reason = "audit-sink-ahead" if is_ahead else "no-audit-sink"
    assert event.body["fields"] == [["reason", reason]]


async def test_what_a_sink_has_of_a_trail_that_was_lost_is_no_copy_of_the_new_one(
    tmp_path: Path,
) -> None:
    """Otherwise retention would delete records that exist nowhere else."""
    sink = Sink()
    await written(tmp_path / "old", 3)
    sink.records = TrailCursor(tmp_path / "old").read(0, limit=3, max_bytes=1 << 20)
    async with opened(tmp_path / "new") as log:
        for number in range(5, 10):
            await log.append(row(number))
        cursor = TrailCursor(tmp_path / "new")
        shipper = Shipper(log, cursor, sink, worker="w1", clock=SystemClock())
        async with shipping(shipper):
            await until(lambda: log.anchor[0] > 5)
        assert shipper.acknowledged == 0
    assert len(sink.records) == 3


async def test_a_cursor_reads_on_over_segments_and_says_what_retention_removed(
    tmp_path: Path,
) -> None:
    await written(tmp_path, 30)
    cursor = TrailCursor(tmp_path)
    found: list[bytes] = []
    while batch := cursor.read(len(found), limit=4, max_bytes=1 << 20):
        assert len(batch) <= 4
        found += batch
    assert len(found) == 30
    assert cursor.read(7, limit=2, max_bytes=1) == found[7:8], "one at least"
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    async with opened(tmp_path, limits=limits) as log:
        while await log.retire():
            pass
    with pytest.raises(HpccError) as caught:
        cursor.read(3, limit=4, max_bytes=1 << 20)
    assert caught.value.reason == "audit-gap"
