"""Trails of a party that may want to harm, or deceive, who reads them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import GENESIS, record_hash
from hpcc.audit.base.frames import LENGTH
from hpcc.audit.base.segments import spool_path
from hpcc.cli.main import main
from hpcc_testkit.farm.audit_rows import opened, row


async def two_rows(directory: Path) -> None:
    async with opened(directory) as log:
        await log.append(row(1, row_id="ab" * 16))
        await log.append(row(2, row_id="cd" * 16))
        await log.seal()


def listed(directory: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the rows' ids that `hpcc audit list` prints."""
    assert main(["audit", "list", "--directory", str(directory)]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]


BOTH = ["cd" * 6, "ab" * 6]


async def test_a_link_in_place_of_an_index_changes_no_file_of_who_makes_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trail = tmp_path / "trail"
    await two_rows(trail)
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    for end in ("idx", "idxseal"):
        path = trail / f"sealed-{0:020d}.{end}"
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    assert main(["audit", "list", "--directory", str(trail)]) == 3
    assert main(["audit", "reindex", "--directory", str(trail)]) == 0
    assert target.read_bytes() == b"mine"
    capsys.readouterr()
    assert listed(trail, capsys) == BOTH


async def test_the_trail_of_another_user_is_read_and_nothing_is_written_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads the trail of a worker that may be in a tenant's hands."""
    await two_rows(tmp_path)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}  # noqa: ASYNC240 - a test
    assert listed(tmp_path, capsys) == BOTH
    assert main(["audit", "reindex", "--directory", str(tmp_path)]) == 2
    assert "run this as that user" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before  # noqa: ASYNC240 - a test


async def test_a_line_end_in_an_argument_or_a_name_forges_no_field_of_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = "\nisolation:            firecracker/kvm"
    texts = {"principal": f"p{forged}", "argv": ("gcc", f"-DA={forged}"), "isolation": "qemu/tcg"}
    outputs = ((f"a.o{forged}", f"ab/1{forged}"),)
    async with opened(tmp_path) as log:
        await log.append(row(1, row_id="ab" * 16, outputs=outputs, **texts))
    assert main(["audit", "show", "abab", "--directory", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [at for at in lines if at.startswith("isolation:")] == ["isolation:            qemu/tcg"]


def forged(directory: Path, *contents: tuple[object, dict[str, object]]) -> None:
    """Write a trail whose chain is right, of records with these kinds and bodies."""
    frames, previous = b"", GENESIS
    for sequence, (kind, body) in enumerate(contents):
        envelope = {
            "body": body, "format": 1, "kind": kind, "previous": previous, "sequence": sequence,
            "worker": "w1",
        }  # fmt: skip
        data = json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()
        frames += LENGTH.pack(len(data)) + data + b"\n"
        previous = record_hash(data)
    spool_path(directory).write_bytes(frames)


ROW, EVENT = asdict(row(1)), {"name": "x", "at": 1.0, "tenant": "", "fields": []}
RETIRED = {"name": "audit-retired", "at": 1.0, "fields": [["until", "9" * 5000]]}
STRANGE: dict[str, tuple[object, dict[str, object]]] = {
    "a-kind-that-is-a-list": ([], ROW),
    "a-row-of-nothing": ("row", {}),
    "no-time": ("row", {**ROW, "started_at": None}),
    "not-a-number": ("row", {**ROW, "started_at": float("nan")}),
    "endless": ("row", {**ROW, "started_at": float("inf")}),
    "after-all-time": ("row", {**ROW, "started_at": 1e300}),
    "no-year": ("row", {**ROW, "started_at": 1e15}),
    "no-name": ("row", {**ROW, "row_id": 7}),
    "a-large-exit-code": ("row", {**ROW, "exit_code": 10**30}),
    "a-large-count": ("row", {**ROW, "guest_execs_before": 10**30}),
    "half-a-letter": ("row", {**ROW, "principal": "\ud800", "row_id": "\ud800"}),
    "a-table": ("row", {**ROW, "tenant": {"a": [1]}}),
    "an-event-of-nothing": ("event", {}),
    "an-event-after-all-time": ("event", {**EVENT, "at": 1e300}),
    "an-event-without-year": ("event", {**EVENT, "at": -1e15}),
    "fields-of-nothing": ("event", {**EVENT, "fields": [[]]}),
    "a-large-retention": ("event", RETIRED),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_forged_record_is_shown_or_refused_in_words_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    forged(tmp_path, ("event", EVENT), STRANGE[name])
    where = ["--directory", str(tmp_path)]
    for command in (
        ["list"], ["list", "--events"], ["query", "--format", "tsv"], ["query", "--event", "x"],
        ["query", "--format", "jsonl"], ["show", "row"], ["export"], ["export", "--format", "tsv"],
        ["export", "--format", "parquet", "--output", str(tmp_path / "rows")], ["determinism"],
        ["verify"],
    ):  # fmt: skip
        status = main(["audit", *command, *where])
        assert status in {0, 1, 2}, command
        assert status == 0 or capsys.readouterr().err.startswith("hpcc: "), command


async def test_a_later_row_with_the_same_id_hides_no_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path) as log:
        await log.append(row(1, row_id="ab" * 16, principal="who-did-it"))
        await log.append(row(2, row_id="ab" * 16, principal="somebody"))
    assert main(["audit", "list", "--directory", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "who-did-it" in out
    assert "somebody" in out
