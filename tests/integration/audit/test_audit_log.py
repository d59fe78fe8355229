"""The audit trail is on disk before `append` returns, is chained, and survives any crash."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import AuditDamagedError, row_of
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import spool_path
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.verify import verify_trail
from hpcc.core import InfrastructureError, IntegrityError, NotFoundError
from hpcc.ports import SecurityEvent
from hpcc_testkit.farm.audit_rows import opened, row


async def test_rows_read_back_and_the_chain_holds(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        async with asyncio.TaskGroup() as group:
            for i in range(50):
                group.create_task(log.append(row(i)))
        await log.event(SecurityEvent(name="token-refused", at=2.0, fields=(("reason", "x"),)))
    index = TrailReader(tmp_path)
    rows = [row_of(r) for r in index.find(Query())]
    assert sorted(r.guest_execs_before for r in rows) == list(range(50))
    assert row(7) in rows
    (event,) = index.find(Query(kind="event"))
    assert event.body["name"] == "token-refused"
    assert row_of(index.row("row_id-49")) == row(49)
    assert verify_trail(tmp_path).count == 51


# Fields that older rows lack.
_NEW = {
    "vmm_version",
    "jailer_digest",
    "snapshot_digest",
    "kernel_command_line",
    "vmm_jail",
    "sharing",
    "engine",
    "lease",
}


async def test_a_row_older_than_a_field_is_read_and_one_with_a_strange_field_is_not(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as log:
        await log.append(row())
    index = TrailReader(tmp_path)
    record = index.row("row_id-0")
    older = {k: v for k, v in record.body.items() if k not in {*_NEW, "argv_omitted"}}
    read = row_of(dataclasses.replace(record, body=older))
    assert [getattr(read, name) for name in sorted(_NEW)] == [""] * len(_NEW)
    assert (read.argv_omitted, read.vmm_digest) == (0, "vmm_digest-0")
    strange = {**record.body, "strange": ""}
    nameless = {k: v for k, v in record.body.items() if k != "isolation"}
    for body in (strange, nameless):
        with pytest.raises(IntegrityError):
            row_of(dataclasses.replace(record, body=body))


async def test_a_row_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append(row(1))
        assert b"row_id-1" in spool_path(tmp_path).read_bytes()
        assert verify_trail(tmp_path).count == 1


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    for i in range(3):
        async with opened(tmp_path) as log:
            await log.append(row(i))
            assert log.anchor[0] == i + 1
    assert verify_trail(tmp_path).count == 3


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
async def test_a_torn_tail_is_cut_and_recorded(tmp_path: Path, kept: float) -> None:
    async with opened(tmp_path) as log:
        await log.append(row(0))
        whole = spool_path(tmp_path).stat().st_size
        await log.append(row(1))
    size = spool_path(tmp_path).stat().st_size
    os.truncate(spool_path(tmp_path), whole + int((size - whole) * kept))
    async with opened(tmp_path) as log:
        await log.append(row(2))
    index = TrailReader(tmp_path)
    ids = [row_of(r).row_id for r in index.find(Query())]
    assert ids == ["row_id-2", "row_id-0"]
    assert [e.body["name"] for e in index.find(Query(kind="event"))] == ["audit-torn-tail"]


async def test_a_tail_of_zeros_after_a_power_cut_is_cut(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append(row(0))
    with spool_path(tmp_path).open("ab") as file:
        file.write(bytes(5000))
    async with opened(tmp_path) as log:
        await log.append(row(1))
    assert verify_trail(tmp_path).count == 3


async def test_a_changed_row_is_noticed_and_nothing_is_written_over_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        for i in range(3):
            await log.append(row(i))
    data = spool_path(tmp_path).read_bytes()
    changed = data.replace(b"principal-1", b"principal-9")
    spool_path(tmp_path).write_bytes(changed)
    with pytest.raises(AuditDamagedError):
        verify_trail(tmp_path)
    with pytest.raises(AuditDamagedError):
        async with opened(tmp_path):
            pass
    assert spool_path(tmp_path).read_bytes() == changed


async def test_a_removed_row_is_noticed(tmp_path: Path) -> None:
    sizes = []
    async with opened(tmp_path) as log:
        for i in range(3):
            await log.append(row(i))
            sizes.append(spool_path(tmp_path).stat().st_size)
    data = spool_path(tmp_path).read_bytes()
    spool_path(tmp_path).write_bytes(data[: sizes[0]] + data[sizes[1] :])
    with pytest.raises(AuditDamagedError):
        verify_trail(tmp_path)


async def test_a_start_deletes_the_one_index_of_earlier_versions(tmp_path: Path) -> None:
    names = [f"index.sqlite{end}" for end in ("", "-wal", "-shm", "-journal")]
    for name in names:
        (tmp_path / name).write_bytes(b"whatever it says")
    async with opened(tmp_path) as log:
        await log.append(row(0))
    assert sorted(p.name for p in tmp_path.iterdir()) == [  # noqa: ASYNC240 - a test
        "lock", "signer", "spool.hpcc", "tree-0", "tree.head",
    ]  # fmt: skip


async def test_a_full_disk_fails_the_row_and_leaves_the_chain_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        await log.append(row(0))

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            with pytest.raises(InfrastructureError):
                await log.append(row(1))
            await log.event(SecurityEvent(name="x", at=1.0))
            assert log.lost_events == 1
        await log.append(row(2))
    assert verify_trail(tmp_path).count == 2


async def test_two_writers_of_one_trail_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(InfrastructureError, match="another process writes"):
            async with opened(tmp_path):
                pass


def test_a_trail_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing was recorded there"):
        verify_trail(tmp_path)


async def test_the_command_line_lists_shows_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpcc.cli.main import main

    async with opened(tmp_path) as log:
        await log.append(row(1, isolation="qemu/tcg", row_id="ab" * 16, principal="ev\x1b[31mil"))
        await log.append(row(2, isolation="qemu/tcg", row_id="cd" * 16))
        await log.event(SecurityEvent(name="token-refused", at=2.0))
    where = ["--directory", str(tmp_path)]
    assert main(["audit", "list", *where]) == 0
    out = capsys.readouterr().out
    assert out.count("qemu/tcg") == 2
    assert "\x1b" not in out
    assert main(["audit", "show", "abab", *where]) == 0
    assert "isolation:            qemu/tcg" in capsys.readouterr().out
    assert main(["audit", "export", "--format", "tsv", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert {line.count("\t") for line in lines} == {37}
    assert main(["audit", "export", *where]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["row_id"] == "ab" * 16
    assert main(["audit", "list", "--events", *where]) == 0
    assert "token-refused" in capsys.readouterr().out
    assert main(["audit", "verify", *where]) == 0
    assert main(["audit", "show", "zz", *where]) == 1
    assert main(["audit", "list", "--since", "nonsense", *where]) == 2
    assert main(["audit", "list", "--since", "2h", *where]) == 0
