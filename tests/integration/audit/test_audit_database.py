"""Audit records in a real PostgreSQL: the rights of each role, and what the database refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import GENESIS, Record, decode_record
from hpcc.audit.cursor import TrailCursor
from hpcc.control.database import read_database_config
from hpcc.core import InfrastructureError, IntegrityError
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.audit_api import AuditPlace
from hpcc.scheduler.audit.database import PostgresAuditSink, open_audit_sink
from hpcc_testkit.farm.audit_rows import SMALL, opened, refusal, row
from hpcc_testkit.services.postgres import PrivatePostgres, missing_or_none, private_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
READERS = ("--reader", "acme=acme_reader", "--reader", "globex=globex_reader")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivatePostgres]:
    """Yield a cluster with the roles that a farm's operator creates."""
    if missing := missing_or_none():
        pytest.skip(missing)
    with private_postgres() as cluster:
        for role in ("scheduler", "acme_reader", "globex_reader", "auditor"):
            cluster.sql("postgres", f"CREATE ROLE {role} LOGIN")
        yield cluster


def audit_sql(*args: str) -> str:
    argv = [sys.executable, "-m", "hpcc.cli", "scheduler", "audit-sql", *args]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def database(cluster: PrivatePostgres, request: pytest.FixtureRequest) -> str:
    """Return a database with the audit tables, created as the manual says."""
    name = f"audit_{abs(hash(request.node.name)) % 10**9}"
    cluster.make_database(name)
    script = audit_sql(*READERS)
    cluster.sql(name, script)
    cluster.sql(name, script)  # again, as after an upgrade
    cluster.sql(name, "GRANT hpcc_audit_writer TO scheduler; GRANT hpcc_audit_auditor TO auditor")
    return name


@pytest.fixture
async def sink(cluster: PrivatePostgres, database: str) -> AsyncGenerator[PostgresAuditSink]:
    config = read_database_config(cluster.url(database, "scheduler"))
    async with open_audit_sink(config, SystemClock()) as sink:
        yield sink


async def records(directory: Path, count: int = 12, principal: str = "a\0b") -> list[Record]:
    """Return a chain with rows of two tenants and one event without a tenant."""
    async with opened(directory, limits=SMALL) as log:
        for number in range(count - 1):
            tenant = "acme" if number % 2 else "globex"
            await log.append(row(number, tenant=tenant, principal=principal))
        await log.event(refusal())
    data = TrailCursor(directory).read(0, limit=1000, max_bytes=1 << 24)
    return [decode_record(d) for d in data]


async def test_records_are_kept_once_and_the_next_one_is_known(
    cluster: PrivatePostgres, database: str, sink: PostgresAuditSink, tmp_path: Path
) -> None:
    chain = await records(tmp_path)
    assert await sink.place("w1") == AuditPlace(0, is_empty=True)
    assert await sink.append("w1", chain[:5]) == AuditPlace(5, is_empty=False)
    assert await sink.append("w1", chain[2:]) == AuditPlace(12, is_empty=False)
    assert await sink.append("w1", chain) == AuditPlace(12, is_empty=False)
    assert cluster.sql(database, "SELECT count(*), max(sequence) FROM hpcc_audit.record") == "12|11"
    stored = cluster.sql(
        database, "SELECT encode(data, 'hex') FROM hpcc_audit.record ORDER BY sequence"
    )
    assert [bytes.fromhex(line) for line in stored.splitlines()] == [r.data for r in chain]
    month = cluster.sql(database, "SELECT to_char(now(), 'YYYY_MM')")
    assert cluster.sql(database, f"SELECT count(*) FROM hpcc_audit.record_{month}") == "12"


async def test_a_gap_is_refused_and_nothing_of_the_batch_stays(
    cluster: PrivatePostgres, database: str, sink: PostgresAuditSink, tmp_path: Path
) -> None:
    chain = await records(tmp_path)
    await sink.append("w1", chain[:3])
    with pytest.raises(IntegrityError) as caught:
        await sink.append("w1", chain[4:])
    assert caught.value.reason == "audit-gap"
    with pytest.raises(IntegrityError) as caught:
        await sink.append("w1", [*chain[3:5], *chain[6:]])
    assert caught.value.reason == "audit-gap"
    assert cluster.sql(database, "SELECT count(*) FROM hpcc_audit.record") == "3"
    assert await sink.place("w1") == AuditPlace(3, is_empty=False)


async def test_another_record_under_a_known_number_is_refused(
    sink: PostgresAuditSink, tmp_path: Path
) -> None:
    one, two = await records(tmp_path / "one"), await records(tmp_path / "two", principal="c")
    await sink.append("w1", one[:5])
    for forged in (two[4:6], two[5:7]):
        with pytest.raises(IntegrityError) as caught:
            await sink.append("w1", forged)
        assert caught.value.reason == "audit-damaged"


async def test_a_worker_that_kept_only_the_end_of_its_chain_begins_there(
    sink: PostgresAuditSink, tmp_path: Path
) -> None:
    chain = await records(tmp_path)
    assert (await sink.append("w1", chain[6:])).next == 12
    with pytest.raises(IntegrityError):
        await sink.append("w1", chain[:6])
    assert chain[0].previous == GENESIS


def refused(cluster: PrivatePostgres, database: str, role: str, statement: str) -> bool:
    try:
        cluster.sql(database, statement, user=role)
    except RuntimeError as error:
        assert "permission denied" in str(error), error
        return True
    return False


async def test_the_role_that_writes_can_neither_read_change_nor_remove(
    cluster: PrivatePostgres, database: str, sink: PostgresAuditSink, tmp_path: Path
) -> None:
    await sink.append("w1", await records(tmp_path))
    for statement in (
        "SELECT * FROM hpcc_audit.record",
        "SELECT tenant FROM hpcc_audit.record LIMIT 1",
        "UPDATE hpcc_audit.record SET tenant = 'x'",
        "DELETE FROM hpcc_audit.record",
        "TRUNCATE hpcc_audit.record",
        "SELECT * FROM hpcc_audit.chain",
        "UPDATE hpcc_audit.chain SET next = 0",
        "INSERT INTO hpcc_audit.reader VALUES ('scheduler', 'acme')",
        "SELECT * FROM hpcc_audit.record_default",
        "INSERT INTO hpcc_audit.record (received_at, worker) VALUES (now(), 'w1')",
        "CREATE TABLE hpcc_audit.x (y int)",
    ):
        assert refused(cluster, database, "scheduler", statement), statement
    assert cluster.sql(database, "SELECT count(*) FROM hpcc_audit.record") == "12"


async def test_a_reader_of_one_tenant_sees_no_row_of_another(
    cluster: PrivatePostgres, database: str, sink: PostgresAuditSink, tmp_path: Path
) -> None:
    await sink.append("w1", await records(tmp_path))
    seen = "SELECT DISTINCT tenant FROM hpcc_audit.record"
    assert cluster.sql(database, seen, user="acme_reader") == "acme"
    assert cluster.sql(database, seen, user="globex_reader") == "globex"
    count = "SELECT count(*) FROM hpcc_audit.record"
    assert cluster.sql(database, f"{count} WHERE tenant = 'globex'", user="acme_reader") == "0"
    assert cluster.sql(database, count, user="acme_reader") == "5"
    assert cluster.sql(database, count, user="auditor") == "12"
    # Nor does a reader see who else reads what, by another role, a partition or another table.
    own = "SELECT tenant FROM hpcc_audit.reader"
    assert cluster.sql(database, own, user="acme_reader") == "acme"
    group = f"SET ROLE hpcc_audit_reader; {count}"
    assert cluster.sql(database, group, user="acme_reader").splitlines()[-1] == "0"
    month = cluster.sql(database, "SELECT to_char(now(), 'YYYY_MM')")
    for statement in (
        f"SELECT * FROM hpcc_audit.record_{month}",
        "SELECT * FROM hpcc_audit.record_default",
        "INSERT INTO hpcc_audit.reader VALUES ('acme_reader', 'globex')",
        "UPDATE hpcc_audit.record SET tenant = 'acme'",
        "DELETE FROM hpcc_audit.record",
        "ALTER TABLE hpcc_audit.record DISABLE ROW LEVEL SECURITY",
        "SELECT hpcc_audit.next_of('w1')",
    ):
        try:
            cluster.sql(database, statement, user="acme_reader")
        except RuntimeError as error:
            assert "permission denied" in str(error) or "must be owner" in str(error)
        else:
            raise AssertionError(statement)


async def test_a_database_that_is_down_is_said_so_and_used_again_when_it_is_back(
    cluster: PrivatePostgres, database: str, sink: PostgresAuditSink, tmp_path: Path
) -> None:
    chain = await records(tmp_path)
    await sink.append("w1", chain[:3])
    cluster.stop()
    try:
        with pytest.raises(InfrastructureError) as caught:
            await sink.append("w1", chain[3:])
        assert caught.value.reason == "audit-sink"
    finally:
        cluster.start()
    assert (await sink.append("w1", chain[3:])).next == 12


def test_a_reader_that_is_no_plain_role_or_tenant_is_refused() -> None:
    for bad in ("acme", "acme=", "=x", "acme=Robert'); DROP", "a'b=x", "acme=x;y"):
        argv = [sys.executable, "-m", "hpcc.cli", "scheduler", "audit-sql", "--reader", bad]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, ""), bad


class Days(SystemClock):
    """A clock that a test moves on by days."""

    days = 0

    def monotonic(self) -> float:
        return super().monotonic() + self.days * 86_400


async def test_partitions_are_made_for_as_long_as_a_scheduler_runs(
    cluster: PrivatePostgres, database: str, tmp_path: Path
) -> None:
    """Partitions made only at the start run out: after two months only the default is left."""
    month = "'hpcc_audit.record_' || to_char(now() + interval '1 month', 'YYYY_MM')"
    drop = f"DO $$ BEGIN EXECUTE 'DROP TABLE ' || {month}; END $$"
    chain, clock = await records(tmp_path, 6), Days()
    config = read_database_config(cluster.url(database, "scheduler"))
    async with open_audit_sink(config, clock) as sink:
        await sink.append("w1", chain[:2])
        for days, is_there in ((0, False), (1, True)):
            cluster.sql(database, drop)
            clock.days = days
            await sink.append("w1", chain[2 : 4 + days])
            found = cluster.sql(database, f"SELECT to_regclass({month})")
            assert bool(found.strip()) is is_there
            if not is_there:
                cluster.sql(database, "SELECT hpcc_audit.make_partitions()")
