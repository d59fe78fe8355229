"""The retention role keeps rows: logged first, over restarts, and whatever is configured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import event_of
from hpcc.audit.base.query import Query
from hpcc.audit.base.retention_statement import (
    RetentionAction,
    RetentionStatement,
    open_statement,
    raw_key,
    sign_statement,
)
from hpcc.audit.base.segments import seals, segment_path
from hpcc.audit.base.spool_limits import RetentionRole, SpoolLimits, retention_role
from hpcc.audit.holds import Retentions, in_force
from hpcc.audit.log import SpoolAuditLog
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.verify import verify_trail
from hpcc.cli.main import main
from hpcc.core import CallerError, HpccError, InfrastructureError, PolicyError
from hpcc.ports import SystemClock
from hpcc.worker.audit.retention import RetentionInbox, retention_inbox
from hpcc_testkit.farm.audit_rows import opened, row

ONE, TWO, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (7, 8, 9))
ROLE = RetentionRole(keys=frozenset({raw_key(ONE), raw_key(TWO)}), quorum=2)
# Everything that is sealed is old, and about four rows are a segment.
OLD = SpoolLimits(segment_bytes=6300, max_bytes=600_000, keep_seconds=1e-6, role=ROLE)
FREE = replace(OLD, role=RetentionRole(keys=ROLE.keys))
_ids: Iterator[str] = (f"{n:016x}" for n in range(1, 1000))
_times: Iterator[float] = (1e13 + n for n in range(1000))


def said(action: RetentionAction, *keys: Ed25519PrivateKey, **more: object) -> bytes:
    values: dict[str, object] = {
        "action": action, "id": next(_ids), "worker": "w1", "at": next(_times), "by": "olga",
        "reason": "incident 12", **more,
    }  # fmt: skip
    return sign_statement(RetentionStatement(**values), keys or (ONE,))  # type: ignore[arg-type]  # as above


def hold(what: str, value: str, *keys: Ed25519PrivateKey) -> bytes:
    return said(RetentionAction.HOLD, *keys, what=what, value=value)


async def allow(log: SpoolAuditLog, before: float = 1e12) -> None:
    await log.obey(said(RetentionAction.RETIRE, ONE, TWO, before=before))


async def rows(log: SpoolAuditLog, first: int, last: int, **more: object) -> None:
    for number in range(first, last):
        await log.append(row(number, tenant="acme" if number == 9 else "other", **more))


def kept(directory: Path) -> list[int]:
    return [s.first for s in seals(directory) if segment_path(directory, s.first).exists()]


@pytest.mark.parametrize(
    ("what", "value"), [("tenant", "acme"), ("build", "build_id-9"), ("row", "row_id-9")]
)
async def test_held_rows_stay(tmp_path: Path, what: str, value: str) -> None:
    """Over a restart as well, and with all that follows them."""
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 20)
        found = await log.obey(hold(what, value))
        await allow(log)
        await rows(log, 20, 40)
    for _ in range(2):
        async with opened(tmp_path, limits=OLD) as log:
            await log.retire()
        (held,) = (s for s in seals(tmp_path) if s.first <= 9 < s.end)
        assert kept(tmp_path) == [s.first for s in seals(tmp_path) if s.first >= held.first]
        assert held.first > 0
        assert verify_trail(tmp_path).first == held.first
    assert len(kept(tmp_path)) > 3
    async with opened(tmp_path, limits=OLD) as log:
        await log.obey(said(RetentionAction.RELEASE, ONE, TWO, id=found.id))
        await log.seal()
        await allow(log)
        await log.retire()
        assert kept(tmp_path) == []
    assert verify_trail(tmp_path).first > 20


async def test_each_statement_is_an_event_before_it_counts(tmp_path: Path) -> None:
    names = []
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 12)
        envelope = hold("tenant", "acme")
        found = await log.obey(envelope)
        await log.obey(said(RetentionAction.RELEASE, ONE, TWO, id=found.id))
        await allow(log)
        assert await log.retire() > 0
    for record in TrailReader(tmp_path).find(Query(kind="event"), oldest_first=True):
        event = event_of(record)
        names.append(event.name)
        if event.name == "audit-hold":
            fields = dict(event.fields)
            assert (fields["by"], fields["what"], fields["value"]) == ("olga", "tenant", "acme")
    assert names == [
        "audit-hold", "audit-hold-released", "audit-retirement-allowed", "audit-retired"
    ]  # fmt: skip


async def test_a_disk_that_takes_no_event_takes_no_statement(tmp_path: Path) -> None:
    is_bad = False

    def fault(step: str) -> None:
        if is_bad and step == "sync":
            raise OSError(28, "no space")

    async with opened(tmp_path, limits=OLD, fault=fault) as log:
        await rows(log, 0, 12)
        found = await log.obey(hold("tenant", "acme"))
        await allow(log)
        is_bad = True
        with pytest.raises(InfrastructureError):
            await log.obey(said(RetentionAction.RELEASE, ONE, TWO, id=found.id))
        assert await log.retire() == 0
        is_bad = False
        await log.retire()
        assert any(s.first <= 9 < s.end for s in seals(tmp_path) if s.first in kept(tmp_path))


async def test_the_first_hold_seals_the_trail_so_that_an_earlier_version_refuses_it(
    tmp_path: Path,
) -> None:
    large = SpoolLimits(role=ROLE)
    async with opened(tmp_path, limits=large) as log:
        await log.append(row())
        await log.obey(hold("tenant", "tenant-0"))
        (sealed,) = seals(tmp_path)
        assert (sealed.end, sealed.signed_from) == (2, 0)
        await log.obey(hold("tenant", "tenant-1"))
        assert len(list(seals(tmp_path))) == 1
    verify_trail(tmp_path)


async def test_single_officer_cannot_retire(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 20)
        found = await log.obey(hold("tenant", "acme", TWO))
        for alone in (
            said(RetentionAction.RETIRE, ONE, before=1e12),
            said(RetentionAction.RETIRE, ONE, STRANGER, before=1e12),
            said(RetentionAction.RELEASE, ONE, id=found.id),
        ):
            with pytest.raises(PolicyError, match="needs 2 good signatures"):
                await log.obey(alone)
        with pytest.raises(PolicyError, match="needs 1 good signatures"):
            await log.obey(hold("tenant", "acme", STRANGER))
        assert await log.retire() == 0
    assert list(in_force(tmp_path)[0]) == [found.id]


async def test_without_its_permission_nothing_is_removed_whatever_is_configured(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, limits=OLD) as log:
        log.hold_for(lambda: log.anchor[0])
        await rows(log, 0, 20)
        assert await log.retire() == 0
        await log.obey(said(RetentionAction.RETIRE, ONE, TWO, before=1.0))
        assert await log.retire() == 0
        await allow(log)
        assert await log.retire() > 0


class SetClock(SystemClock):
    """Tells a time that a test sets; timers are the machine's."""

    time = 1000.0

    def now(self) -> float:
        return self.time


async def test_a_permission_covers_what_was_sealed_before_it_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    """Over a restart too: an operator who sets the clock back can remove nothing more."""
    clock = SetClock()
    async with opened(tmp_path, limits=OLD, clock=clock) as log:
        await rows(log, 0, 20)
        clock.time += 100
        await allow(log, before=clock.time)
        clock.time -= 90
        await rows(log, 20, 40)
        await log.seal()
        clock.time += 1000
        assert await log.retire() > 0
        first = kept(tmp_path)[0]
        assert 0 < first <= 20
    async with opened(tmp_path, limits=OLD, clock=clock) as log:
        assert await log.retire() == 0
        assert kept(tmp_path)[0] == first
        await allow(log, before=clock.time)
        assert await log.retire() > 0
    # The permission is in the trail as long as it counts.
    ((_, until, _),) = map(astuple, in_force(tmp_path)[2])
    assert until > 40
    verify_trail(tmp_path)


async def test_a_permission_of_the_future_and_one_that_was_given_before_are_refused(
    tmp_path: Path,
) -> None:
    first = said(RetentionAction.RETIRE, ONE, TWO, before=1e12)
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 20)
        with pytest.raises(CallerError, match="names a later time: give it again then"):
            await log.obey(said(RetentionAction.RETIRE, ONE, TWO, before=2e13))
        await log.obey(first)
        await rows(log, 20, 40)
        await log.seal()
        await allow(log)
        assert await log.retire() > 0
        assert kept(tmp_path) == []
    async with opened(tmp_path, limits=OLD) as log:
        # Its event is gone.
        await rows(log, 40, 60)
        with pytest.raises(CallerError, match="a later permission to remove was given already"):
            await log.obey(first)
        assert await log.retire() == 0


async def test_a_permission_of_the_future_that_an_earlier_version_took_covers_its_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Retentions, "_check_permission", lambda *_: None)
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 20)
        await allow(log, before=9e13)
        await rows(log, 20, 40)
        assert await log.retire() > 0
        assert 0 < kept(tmp_path)[0] <= 20
    async with opened(tmp_path, limits=OLD) as log:
        assert await log.retire() == 0


async def test_a_hold_stays_when_the_keys_are_taken_out_of_the_configuration(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 20)
        await log.obey(hold("row", "row_id-0"))
    async with opened(tmp_path, limits=replace(OLD, role=RetentionRole())) as log:
        assert await log.retire() == 0
        with pytest.raises(PolicyError, match="knows no retention role"):
            await log.obey(hold("row", "row_id-1"))


async def test_a_statement_counts_once_for_one_worker_and_as_it_was_signed(tmp_path: Path) -> None:
    envelope = hold("tenant", "acme")
    table = json.loads(envelope)
    strange = {
        "given before": envelope,
        "for worker w2": hold_of("w2"),
        "not a retention statement": json.dumps(table).encode(),
        "no hold": said(RetentionAction.RELEASE, ONE, TWO),
        "is not": b"{}",
        "this is not": b"[" * 9000,
        "hpcc": b" " * 20_000,
    }
    async with opened(tmp_path, limits=FREE) as log:
        await rows(log, 0, 4)
        await log.obey(envelope)
        before = log.anchor
        for words, data in strange.items():
            with pytest.raises(CallerError, match=words):
                await log.obey(data)
        table["signatures"][0]["sig"] = json.loads(hold_of("w2"))["signatures"][0]["sig"]
        changed = json.dumps(table, separators=(",", ":"), sort_keys=True).encode()
        assert open_statement(changed)[1] == frozenset()
        with pytest.raises(HpccError):
            await log.obey(changed)
        assert log.anchor == before


def hold_of(worker: str) -> bytes:
    return said(RetentionAction.HOLD, what="tenant", value="acme", worker=worker)


async def test_a_segment_that_cannot_be_read_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, limits=OLD) as log:
        await rows(log, 0, 20)
        await log.obey(hold("tenant", "acme"))
        await allow(log)
        path = next(iter(sorted(tmp_path.glob("*.idx"))))  # noqa: ASYNC240 - a test
        path.write_bytes(b"junk")
        assert await log.retire() == 0
    assert "cannot delete old audit segments" in caplog.text


@pytest.mark.parametrize(
    "values",
    [
        {"what": "user", "value": "x"}, {"what": "tenant"}, {"before": 5.0, "what": "row", "value": "x"},
        {"id": "XYZ"}, {"reason": " "}, {"worker": ""}, {"value": "a\nb", "what": "row"},
        {"value": "x" * 201, "what": "row"}, {"at": float("nan"), "what": "row", "value": "x"},
    ],
)  # fmt: skip
def test_a_statement_that_nobody_could_obey_is_not_made(values: dict[str, object]) -> None:
    with pytest.raises(CallerError):
        said(RetentionAction.HOLD, **values)


def test_keys_and_number_of_the_role_are_checked() -> None:
    assert retention_role([raw_key(ONE).hex()], 1).keys == {raw_key(ONE)}
    for keys, quorum in ((["xy"], 1), ([raw_key(ONE).hex()], 2), ([], 0)):
        with pytest.raises(CallerError, match="audit_retention"):
            retention_role(keys, quorum)


async def test_the_list_shows_what_is_in_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path, limits=FREE) as log:
        await rows(log, 0, 4)
    where = ["audit", "hold", "list", "--directory", str(tmp_path)]
    assert main(where) == 0
    assert "no hold is in force" in capsys.readouterr().out
    async with opened(tmp_path, limits=FREE) as log:
        found = await log.obey(hold("build", "ci/4711"))
    assert main(where) == 0
    out = capsys.readouterr().out
    assert f"{found.id}  build ci/4711" in out
    assert "record 4, by olga: incident 12" in out


def worker_file(directory: Path) -> Path:
    """Write the configuration of worker w1, whose directories are below `directory`."""
    names = ("keys", "store", "audit", "images", "guest_assets", "state")
    table = {name: str(directory / name) for name in names}
    (directory / "state").mkdir()
    file = directory / "worker.json"
    file.touch(mode=0o600)
    file.write_text(
        json.dumps({**table, "worker_id": "w1", "image_digests": [], "scheduler": "127.0.0.1:1"})
    )
    return file


async def test_the_commands_give_statements_to_a_worker_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = worker_file(tmp_path)
    key = tmp_path / "olga.key"
    assert main(["audit", "hold", "key", str(key)]) == 0
    (public,) = json.loads(f"{{{capsys.readouterr().out}}}")["audit_retention_keys"]
    assert main(["audit", "hold", "key", str(key)]) != 0
    signing = ["--key", str(key), "--reason", "incident 12", "--config", str(config)]

    async def ran(*words: str) -> int:
        return await asyncio.to_thread(main, ["audit", *words, *signing])

    limits = replace(OLD, role=retention_role([public], 1))
    trail = tmp_path / "audit"
    async with (
        opened(trail, limits=limits) as log,
        retention_inbox(tmp_path / "state", log, SystemClock()),
    ):
        await rows(log, 0, 20)
        assert await ran("hold", "add", "--tenant", "acme") == 0
        name = capsys.readouterr().out.split()[1]
        assert await ran("retire", "--before", "2999-01-31") == 2
        assert "Run this again after that time" in capsys.readouterr().err
        assert await ran("retire", "--before", "0s") == 0
        assert await ran("hold", "release", "0" * 16) == 2
        assert f"no hold {'0' * 16} is in force" in capsys.readouterr().err
        await log.retire()
        assert any(s.first <= 9 < s.end for s in seals(trail) if s.first in kept(trail))
        assert await ran("hold", "release", name) == 0
    assert in_force(trail)[0] == {}
    assert list((tmp_path / "state/retention").iterdir()) == []


async def test_a_statement_waits_for_a_worker_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = worker_file(tmp_path)
    monkeypatch.setattr("hpcc.cli.audit.hold._ANSWER_SECONDS", 0.0)
    key = tmp_path / "olga.key"
    assert await asyncio.to_thread(main, ["audit", "hold", "key", str(key)]) == 0
    (public,) = json.loads(f"{{{capsys.readouterr().out}}}")["audit_retention_keys"]
    words = ["audit", "hold", "add", "--build", "ci/1", "--key", str(key), "--reason", "x"]
    assert await asyncio.to_thread(main, [*words, "--config", str(config)]) == 1
    assert "The statement counts once it runs" in capsys.readouterr().err
    for number in range(3):
        junk = tmp_path / "state/retention" / f"{number:016x}.statement"
        junk.mkdir() if number == 2 else junk.write_bytes(b"x" * (number * 20_000))
    async with opened(
        tmp_path / "audit", limits=replace(OLD, role=retention_role([public], 1))
    ) as log:
        await RetentionInbox(tmp_path / "state", log, SystemClock()).look()
    (held,) = in_force(tmp_path / "audit")[0].values()
    assert held.statement.value == "ci/1"
    names = sorted(p.name for p in (tmp_path / "state/retention").iterdir())
    assert [name for name in names if name.endswith(".statement")] == [f"{2:016x}.statement"]
