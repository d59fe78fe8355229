"""`hpcc audit query --database`: PostgreSQL finds rows of all workers, their trails prove them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import Record, decode_record
from hpcc.audit.cursor import TrailCursor
from hpcc.cli.main import main
from hpcc.control.database import read_database_config
from hpcc.ports import SystemClock
from hpcc.scheduler.audit.database import open_audit_sink
from hpcc.scheduler.audit.schema import AUDIT_SQL
from hpcc_testkit.farm.audit_rows import SMALL, opened, row
from hpcc_testkit.services.postgres import PrivatePostgres, missing_or_none, private_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WORKERS = ("w1", "w2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivatePostgres]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with private_postgres() as cluster:
        for role in ("scheduler", "acme_reader", "auditor"):
            cluster.sql("postgres", f"CREATE ROLE {role} LOGIN")
        yield cluster


class Farm:
    """Trails of two workers with rows of two tenants, and a database that has all of them."""

    def __init__(self, cluster: PrivatePostgres, name: str, base: Path) -> None:
        self.cluster, self.name, self.base = cluster, name, base
        cluster.make_database(name)
        cluster.sql(name, AUDIT_SQL)
        cluster.sql(
            name,
            "GRANT hpcc_audit_writer TO scheduler; GRANT hpcc_audit_auditor TO auditor;"
            " GRANT hpcc_audit_reader TO acme_reader;"
            " INSERT INTO hpcc_audit.reader VALUES ('acme_reader', 'acme')",
        )

    async def write(self) -> None:
        config = read_database_config(self.cluster.url(self.name, "scheduler"))
        async with open_audit_sink(config, SystemClock()) as sink:
            for place, worker in enumerate(WORKERS):
                await sink.append(worker, await self._records(worker, place))

    async def _records(self, worker: str, place: int) -> list[Record]:
        directory = self.base / worker
        async with opened(directory, limits=SMALL, worker=worker) as log:
            for number in range(10):
                tenant = "acme" if number % 2 else "globex"
                one = row(number, tenant=tenant, worker=worker, row_id=f"{worker}-{number:02d}",
                          started_at=1.7e9 + 10 * number + place)  # fmt: skip
                await log.append(one)
        data = TrailCursor(directory).read(0, limit=1000, max_bytes=1 << 24)
        return [decode_record(d) for d in data]

    def query(self, *words: str, role: str = "auditor", workers: tuple[str, ...] = WORKERS) -> int:
        trails = [w for worker in workers for w in ("--trail", str(self.base / worker))]
        url = self.cluster.url(self.name, role)
        return main(["audit", "query", "--database", url, *trails, "--format", "jsonl", *words])


@pytest.fixture
def farm(cluster: PrivatePostgres, request: pytest.FixtureRequest, tmp_path: Path) -> Farm:
    found = Farm(cluster, f"farm_{abs(hash(request.node.name)) % 10**9}", tmp_path)
    asyncio.run(found.write())
    return found


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    out, err = capsys.readouterr()
    return [json.loads(line)["row_id"] for line in out.splitlines()], err


def test_rows_of_all_workers_are_found_and_the_answer_says_what_it_rests_on(
    farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert farm.query("--tenant", "acme") == 0
    rows, err = shown(capsys)
    assert rows == [f"{w}-{n:02d}" for n in (9, 7, 5, 3, 1) for w in ("w2", "w1")]
    assert "w1: complete from record 0 to " in err
    assert farm.query("--tenant", "acme", "-n", "3") == 0
    rows, err = shown(capsys)
    assert rows == ["w2-09", "w1-09", "w2-07"]
    assert "and more" in err
    # Filters without a column are decided on the proved record.
    assert farm.query("--reuse", "reuse-4", "--worker", "w2") == 0
    assert shown(capsys)[0] == ["w2-04"]
    assert farm.query("--object", "ff") == 0
    assert shown(capsys)[0] == []


def test_a_worker_without_a_trail_is_counted_and_not_shown(
    farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert farm.query("--tenant", "acme", workers=("w1",)) == 4
    rows, err = shown(capsys)
    assert rows == [f"w1-{n:02d}" for n in (9, 7, 5, 3, 1)]
    assert "5 rows of w2 are not shown: give its trail" in err


def test_a_reader_of_a_tenant_sees_its_rows_and_that_omissions_are_not_counted(
    farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert farm.query("--tenant", "acme", role="acme_reader") == 4
    rows, err = shown(capsys)
    assert len(rows) == 10
    assert "this role sees rows of its tenants only" in err


@pytest.mark.parametrize(
    ("forgery", "status", "word"),
    [
        ("SET hash = repeat('0', 64) WHERE row_id = 'w1-03'", 5, "is another one in the database"),
        ("SET row_id = 'w1-99' WHERE row_id = 'w1-03'", 5, "and its trail does not have"),
        ("SET sequence = 77 WHERE row_id = 'w1-03'", 5, "and its trail does not have"),
        ("SET worker = 'w2' WHERE row_id = 'w1-03'", 5, "and its trail does not have"),
        ("SET tenant = 'globex' WHERE row_id = 'w1-03'", 4, "w1: 1 matching rows of its trail are"),
        ("DELETE", 4, "w1: 1 records are MISSING"),
    ],
    ids=["hash", "row-id", "sequence", "worker", "tenant", "removed"],
)
def test_a_changed_database_shows_no_wrong_row(
    farm: Farm, forgery: str, status: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = f"UPDATE hpcc_audit.record {forgery}"
    if forgery == "DELETE":
        statement = "DELETE FROM hpcc_audit.record WHERE row_id = 'w1-03'"
    farm.cluster.sql(farm.name, statement)
    assert farm.query("--tenant", "acme") == status
    rows, err = shown(capsys)
    assert word in err
    assert "w1-03" not in rows
    assert (rows == []) == (status == 5)


def test_a_changed_trail_proves_nothing(farm: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    segment = next(p for p in (farm.base / "w1").glob("*.hpcc") if b"w1-03" in p.read_bytes())
    segment.write_bytes(segment.read_bytes().replace(b"principal-3", b"principal-4"))
    assert farm.query("--tenant", "acme") == 5
    assert shown(capsys)[0] == []


def test_the_options_of_one_trail_and_of_a_farm_exclude_each_other(
    farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, word in (
        (("--directory", str(farm.base / "w1")), "not with the directory of one trail"),
        (("--events",), "--database finds rows"),
    ):
        assert farm.query(*words) == 2
        assert word in capsys.readouterr().err
    assert farm.query(workers=()) == 2
    assert "--database only finds" in capsys.readouterr().err
