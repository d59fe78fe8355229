"""An index only finds: what somebody changed in it is never printed, and no row is left out.

The oracle is what the test wrote. It shares no code with the commands: it compares their output
with the rows.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import row_of
from hpcc.audit.base.index_statement import IndexFacts, index_path, statement_path
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import seals, segment_path, spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.lookup import index as index_module
from hpcc.audit.lookup import open_index
from hpcc.audit.lookup.index import IndexBuilder
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.verify import verify_trail
from hpcc.cli.main import main
from hpcc.ports import AuditRow
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, refusal, row
from hpcc_testkit.hostile.forged_indexes import Forger, as_of_an_earlier_version, restore

SEED = 19
FORGERIES = 93


def made_row(number: int) -> AuditRow:
    chosen = random.Random(SEED + number)
    return row(
        number,
        row_id=f"{chosen.getrandbits(128):032x}",
        started_at=1000.0 + number,
        tenant=chosen.choice(("acme", "globex")),
        principal=chosen.choice(("alice", "bob", "bob\0", "zoë")),
        build_id=chosen.choice(("ci/1", "ci/2", "x" * 130)),
        action_digest=f"{chosen.getrandbits(256):064x}/{number}",
        exit_code=chosen.choice((0, 0, 1, 139)),
        isolation=chosen.choice(("qemu/tcg", "firecracker/kvm")),
        cache_status=chosen.choice(("executed", "hit")),
        outputs=(("a.o", f"{chosen.getrandbits(256):064x}/9"), ("a.d", "ab/1")),
    )


ROWS = [made_row(number) for number in range(26)]


@pytest.fixture
async def trail(tmp_path: Path) -> Path:
    """A trail of sealed segments and an open one, with two events."""
    directory = tmp_path / "trail"
    async with opened(directory, limits=SMALL) as log:
        for number, item in enumerate(ROWS):
            await log.append(item)
            if number in {4, 20}:
                await log.event(refusal(number, tenant="acme"))
    assert len(list(directory.glob("*.idx"))) > 4
    return directory


def audit(trail: Path, *argv: str) -> int:
    return main(["audit", *argv, "--directory", str(trail)])


def printed(trail: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = audit(trail, *argv)
    out, err = capsys.readouterr()
    return code, out, err


def plain(item: AuditRow) -> dict[str, object]:
    body: dict[str, object] = json.loads(json.dumps(asdict(item)))
    return body


def bodies(text: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k not in {"sequence", "hash"}} for line in lines]


def is_true(argv: tuple[str, ...], out: str) -> bool:
    """Return whether a command printed exactly what was written."""
    if argv[0] == "export":
        return bodies(out) == [plain(item) for item in ROWS]
    if argv[0] == "query":
        wanted = [plain(r) for r in reversed(ROWS) if r.principal == "bob" and r.exit_code == 0]
        return bodies(out) == wanted
    if argv[0] == "list":
        ids = [line.split()[0] for line in out.splitlines()[1:]]
        return ids == [item.row_id[:12] for item in reversed(ROWS)]
    wanted_row = next(item for item in ROWS if item.row_id == argv[1])
    fields = dict(line.partition(":")[::2] for line in out.splitlines() if line[:1] != " ")
    return all(
        fields[name].strip() == str(getattr(wanted_row, name)).replace("\0", "?")
        for name in ("row_id", "principal", "tenant", "isolation", "cache_status", "action_digest")
    )


def asked() -> tuple[tuple[str, ...], ...]:
    return (
        ("list", "-n", "100"),
        ("show", ROWS[3].row_id),
        ("query", "--principal", "bob", "--exit-code", "0", "--format", "jsonl"),
        ("export",),
    )


def test_forged_index_row_is_never_shown_and_no_row_is_left_out(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = trail.with_name("copy")
    shutil.copytree(trail, copy)
    believed, found = [], 0
    for seed in range(SEED, SEED + FORGERIES):
        what = Forger(trail, seed).forge()
        for argv in asked():
            code, out, err = printed(trail, capsys, *argv)
            if code == 3:
                found += 1
                if "the index of segment " not in err or "hpcc audit reindex" not in err:
                    believed.append((seed, what, argv, err))
            elif code != 1 and not is_true(argv, out):
                believed.append((seed, what, argv, code, out[:200]))
            elif code == 1 and "is not the one that was sealed" not in err and "seal" not in err:
                believed.append((seed, what, argv, err))
        restore(copy, trail)
    assert believed == []
    # Most of them are noticed, and not only without effect.
    assert found > FORGERIES * 2


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE record SET hash = zeroblob(32) WHERE sequence = 1",
        "DELETE FROM record WHERE sequence = 1",
        "INSERT INTO output VALUES (1, 'cd/1')",
    ],
)
def test_a_changed_deleted_or_inserted_index_row_names_the_segment_and_the_remedy(
    trail: Path, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    with closing(sqlite3.connect(index_path(trail, 0))) as db:
        db.execute(script)
        db.commit()
    for command in (*asked(), ("verify",)):
        code, _, err = printed(trail, capsys, *command)
        assert code == 3
        assert f"the index of segment 0 ({index_path(trail, 0)}) is not the one" in err
    for command in asked():
        code, out, _ = printed(trail, capsys, *command, "--exhaustive")
        assert code == 0
        assert is_true(command, out)
    code, out, _ = printed(trail, capsys, "reindex")
    assert code == 0
    assert "the index of segment 0 was made again, and is the one that was sealed" in out
    assert out.count("is the one that was sealed") == len(list(seals(trail)))
    for command in asked():
        code, out, _ = printed(trail, capsys, *command)
        assert (code, is_true(command, out)) == (0, True)
    assert audit(trail, "verify") == 0


def test_a_query_reads_only_the_indexes_of_its_time(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies outside is not read, so it is not compared either."""
    index_path(trail, 0).write_bytes(b"junk")
    late = ("query", "--since", "1970-01-01T00:16:50", "--format", "jsonl")
    code, out, _ = printed(trail, capsys, *late)
    assert code == 0
    assert bodies(out) == [plain(r) for r in reversed(ROWS) if r.started_at >= 1010.0]
    assert printed(trail, capsys, "query", "--format", "jsonl")[0] == 3


def test_the_object_of_a_row_is_found_by_its_digest(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for item in (ROWS[2], ROWS[-1]):
        digest = item.outputs[0][1]
        for start in (digest, digest[:20], digest[:9]):
            code, out, _ = printed(trail, capsys, "query", "--object", start, "--format", "jsonl")
            assert (code, bodies(out)) == (0, [plain(item)])
    wrong = ROWS[2].outputs[0][1][:20] + "zz"
    assert printed(trail, capsys, "query", "--object", wrong, "--format", "jsonl")[:2] == (0, "")


def test_an_index_finds_exactly_what_a_full_read_finds(trail: Path) -> None:
    chosen = random.Random(SEED)
    for _ in range(40):
        item = chosen.choice(ROWS)
        texts = ("tenant", "principal", "build_id", "isolation", "cache_status", "guest_id")
        conditions: dict[str, object] = {
            name: getattr(item, name) for name in texts if chosen.random() < 0.3
        }
        if chosen.random() < 0.3:
            conditions["action_digest"] = item.action_digest[: chosen.randrange(70)]
        if chosen.random() < 0.2:
            conditions["since"] = 1000.0 + chosen.randrange(30)
        if chosen.random() < 0.2:
            conditions["until"] = 1000.0 + chosen.randrange(30)
        if chosen.random() < 0.2:
            conditions["exit_code"] = chosen.choice((0, 1, 10**30))
        query = Query(**conditions)  # type: ignore[arg-type]  # built by name just above
        is_oldest = chosen.random() < 0.5
        fast = TrailReader(trail).find(query, oldest_first=is_oldest)
        slow = TrailReader(trail, is_exhaustive=True).find(query, oldest_first=is_oldest)
        found = [r.data for r in fast]
        assert found == [r.data for r in slow]
        assert sorted(json.loads(d)["body"]["row_id"] for d in found) == sorted(
            r.row_id for r in ROWS if _meets(r, conditions)
        )


def _meets(item: AuditRow, conditions: dict[str, object]) -> bool:
    for name, value in conditions.items():
        if name == "since" and not item.started_at >= float(str(value)):
            return False
        if name == "until" and not item.started_at < float(str(value)):
            return False
        if name in {"action_digest", "guest_id"}:
            if not getattr(item, name).startswith(value):
                return False
        elif name not in {"since", "until"} and getattr(item, name) != value:
            return False
    return True


def test_a_record_that_was_changed_in_its_segment_is_not_shown(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = segment_path(trail, 0)
    data = path.read_bytes()
    assert data.count(ROWS[1].row_id.encode()) == 1
    path.write_bytes(data.replace(ROWS[1].row_id.encode(), ROWS[1].row_id[::-1].encode()))
    for command in (("list", "-n", "100"), ("export",)):
        code, out, err = printed(trail, capsys, *command)
        assert code == 1
        assert ROWS[1].row_id[::-1][:12] not in out
        assert f"{path}: record 1 is not the one that was sealed" in err
    # Without an index the whole segment is read, before anything of it is shown.
    code, out, err = printed(trail, capsys, "export", "--exhaustive")
    assert (code, out) == (1, "")
    assert str(path) in err


def test_a_segment_that_retention_did_not_remove_is_missed_by_a_query(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = list(seals(trail))
    for place, why in ((0, "retention did not remove it"), (2, "earlier segments are not")):
        path = segment_path(trail, sealed[place].first)
        data = path.read_bytes()
        path.unlink()
        for argv in (("list", "-n", "100"), ("export",), ("export", "--exhaustive")):
            code, _, err = printed(trail, capsys, *argv)
            assert code == 1
            assert f"{path} is missing" in err
            assert why in err
        path.write_bytes(data)
    assert audit(trail, "verify") == 0


async def test_what_retention_removed_is_not_missing(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    async with opened(trail, limits=limits) as log:
        await log.retire()
        await log.append(row(99, row_id="ee" * 16))
    code, out, _ = printed(trail, capsys, "list", "-n", "100")
    assert code == 0
    assert "ee" * 6 in out
    assert list(trail.glob("*.idx")) == []  # noqa: ASYNC240 - a test


def lines_of(trail: Path) -> list[str]:
    return [r.data.decode() for r in TrailReader(trail).find(Query(limit=1000))]


async def test_an_older_trail_gets_signed_indexes_and_loses_its_old_one(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_of_an_earlier_version(trail)
    before = {p.name: p.read_bytes() for p in trail.glob("*.seal")}  # noqa: ASYNC240 - a test
    for command in asked():
        code, out, _ = printed(trail, capsys, *command)
        assert (code, is_true(command, out)) == (0, True)
    async with opened(trail, limits=SMALL) as log:
        assert not (trail / "index.sqlite").exists()
        await log.index_old()
    sealed = list(seals(trail))
    # The start has sealed the open segment with a seal of this version.
    *older, _ = sealed
    assert [seal.index is None for seal in sealed] == [*(True for _ in older), False]
    # The seals may be in a locked bucket: they stay as they were.
    after = {p.name: p.read_bytes() for p in trail.glob("*.seal")}  # noqa: ASYNC240 - a test
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert all(statement_path(trail, seal.first).is_file() for seal in older)
    assert verify_trail(trail).indexes == len(sealed)
    for command in asked():
        code, out, _ = printed(trail, capsys, *command)
        assert (code, is_true(command, out)) == (0, True)
    index_path(trail, 0).write_bytes(index_path(trail, sealed[1].first).read_bytes())
    assert printed(trail, capsys, "export")[0] == 3
    code, out, _ = printed(trail, capsys, "reindex")
    assert code == 0
    assert printed(trail, capsys, "export")[0] == 0


async def test_an_index_that_another_sqlite_makes_in_another_way_gets_a_new_statement(
    trail: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index_path(trail, 0).write_bytes(b"junk")
    monkeypatch.setattr(index_module, "_PAGE_BYTES", 2048)
    code, out, _ = printed(trail, capsys, "reindex")
    assert code == 0
    assert "the index of segment 0 was removed: commands read the segment" in out
    assert printed(trail, capsys, "export")[0] == 0
    async with opened(trail, limits=SMALL) as log:
        await log.index_old()
    assert index_path(trail, 0).read_bytes()[16:18] == (2048).to_bytes(2, "big")
    assert printed(trail, capsys, "export")[0] == 0
    assert verify_trail(trail).indexes == len(list(seals(trail)))


async def test_an_index_that_the_worker_sealed_without_a_row_is_found_by_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = IndexBuilder.facts

    def without_a_row(builder: IndexBuilder) -> IndexFacts:
        builder._db.execute("DELETE FROM record WHERE sequence = 1")
        builder._db.commit()
        return facts(builder)

    with monkeypatch.context() as patch:
        patch.setattr(IndexBuilder, "facts", without_a_row)
        async with opened(tmp_path, limits=SMALL) as log:
            for item in ROWS[:10]:
                await log.append(item)
    code, _, err = printed(tmp_path, capsys, "verify")
    assert code == 1
    assert "the sealed index of segment 0 differs from the segment at record 1" in err


async def test_the_trails_size_counts_what_lies_beside_the_segments(trail: Path) -> None:
    async with opened(trail, limits=SMALL) as log:
        counted = log.size[0]
        files = [*trail.glob("sealed-*"), spool_path(trail)]  # noqa: ASYNC240 - a test
        on_disk = sum(p.stat().st_size for p in files)
        # The index of the open segment is in memory, and counted as if it were written.
        assert 0 < counted - on_disk < 20_000


async def test_a_segment_whose_index_cannot_be_made_is_sealed_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_builder: IndexBuilder, _placed: object) -> None:
        raise index_module.InfrastructureError("database is locked", reason="audit-index")

    async with opened(tmp_path, limits=SMALL, key=KEY) as log:
        with monkeypatch.context() as patch:
            patch.setattr(IndexBuilder, "add", failing)
            patch.setattr(open_index, "_MAX_WAITING", 1)
            await log.append(ROWS[0])
        for item in ROWS[1:10]:
            await log.append(item)
    sealed = list(seals(tmp_path))
    assert sealed[0].index is None
    assert sealed[1].index is not None
    assert len(lines_of(tmp_path)) == 10
    async with opened(tmp_path, limits=SMALL, key=KEY) as log:
        await log.index_old()
    assert statement_path(tmp_path, 0).is_file()
    assert [row_of(r) for r in TrailReader(tmp_path).find(Query())] == ROWS[9::-1]


async def test_a_segment_that_was_changed_gets_no_index_and_the_others_get_theirs(
    trail: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_of_an_earlier_version(trail)
    path = segment_path(trail, 0)
    path.write_bytes(path.read_bytes().replace(b"principal", b"principle", 1))
    async with opened(trail, limits=SMALL) as log:
        await log.index_old()
        await log.index_old()
    sealed = list(seals(trail))
    have = [seal.first for seal in sealed if index_path(trail, seal.first).exists()]
    assert have == [seal.first for seal in sealed[1:]]
    assert caplog.text.count("an audit segment has no index") == 1
