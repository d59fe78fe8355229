"""What somebody changed in the index, and not in the trail, is found before it is believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hpcc.audit.index import INDEX_NAME
from hpcc.cli.main import main
from hpcc_testkit.farm.audit_rows import SMALL, opened, row


@pytest.fixture
async def trail(tmp_path: Path) -> Path:
    """A trail of sealed segments and an open one."""
    async with opened(tmp_path, limits=SMALL) as log:
        for number in range(10):
            await log.append(row(number, principal=f"who-{number}"))
    return tmp_path


def change(trail: Path, script: str) -> None:
    with closing(sqlite3.connect(trail / INDEX_NAME)) as db:
        db.executescript(script)


def audit(trail: Path, *argv: str) -> int:
    return main(["audit", *argv, "--directory", str(trail)])


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE record SET data = CAST(replace(CAST(data AS TEXT), 'who-4', 'you-4') AS BLOB)"
        " WHERE sequence = 4",
        "UPDATE record SET principal = 'you-4' WHERE sequence = 4",
        "UPDATE record SET at = at + 1 WHERE sequence = 0",
        "DELETE FROM record WHERE sequence = 4",
        "DELETE FROM record WHERE sequence = 0",
        "INSERT INTO record SELECT 99, kind, 'x', at, exit_code, worker, tenant, principal,"
        " build_id, action_digest, image_digest, cache_status, guest_id, isolation, reuse, reason,"
        " name, peer, request_id, hash, segment, place, data FROM record WHERE sequence = 4",
    ],
)
def test_a_record_that_was_changed_hidden_or_added_in_the_index_only_is_found(
    trail: Path, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    assert audit(trail, "verify") == 0
    change(trail, script)
    assert audit(trail, "verify") == 1
    said = (
        "has record 99, which the trail" if "99" in script else "differs from the trail at record"
    )
    assert f"{INDEX_NAME} {said}" in capsys.readouterr().err
    (trail / INDEX_NAME).unlink()
    assert audit(trail, "verify") == 0
    assert audit(trail, "list") == 0
    assert "who-4" in capsys.readouterr().out


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
        "ALTER TABLE record RENAME TO other; CREATE VIEW record AS SELECT * FROM other",
        "CREATE TABLE other (x)",
    ],
)
def test_an_index_with_a_view_or_a_trigger_is_not_used(
    trail: Path, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    change(trail, script)
    for command in ("list", "verify"):
        assert audit(trail, command) == 1
        assert "delete it, it is made again" in capsys.readouterr().err


def test_a_damaged_page_of_the_index_is_an_error_in_words(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trail / INDEX_NAME
    # The first two pages hold the schema and the table's root.
    path.write_bytes(path.read_bytes()[:8192] + b"\xff" * (path.stat().st_size - 8192))
    for command in ("list", "export", "verify"):
        assert audit(trail, command) == 1
        assert "it is made again" in capsys.readouterr().err


def test_what_the_index_has_of_removed_records_is_not_shown(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(
        trail,
        "INSERT INTO record SELECT -1, kind, 'x', at, exit_code, worker, tenant, principal,"
        " build_id, action_digest, image_digest, cache_status, guest_id, isolation, reuse, reason,"
        " name, peer, request_id, hash, segment, place, data FROM record WHERE sequence = 4",
    )
    assert audit(trail, "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 10
    assert audit(trail, "verify") == 0
