"""A full disk is called that, whatever the database calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.files import disk
from hpcc.ports import ControlStoreError, SystemClock


def test_a_disk_with_room_is_not_to_blame(tmp_path: Path) -> None:
    free, whole = disk.size_of_disk(tmp_path)
    assert 0 < free <= whole
    assert disk.full_disk(tmp_path / "a") == ""
    assert disk.full_disk(tmp_path / "no/such") == ""


def test_a_database_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says "disk I/O error", and deleting the file would not help."""
    (tmp_path / "index.sqlite").mkdir()  # cannot be opened, as one without room for its log
    monkeypatch.setattr(disk, "size_of_disk", lambda _: (12 << 10, 1 << 40))
    with pytest.raises(ControlStoreError, match=r"; its disk is full, 12 KiB are free$"):
        EmbeddedControlStore(tmp_path / "index.sqlite", SystemClock())
