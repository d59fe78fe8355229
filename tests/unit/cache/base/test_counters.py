"""Counts that are kept over restarts of the daemon."""

from __future__ import annotations

from pathlib import Path

from hpcc.cache.base.counters import Counters, read_counters


def test_what_is_counted_after_the_end_is_written_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "counters.json")
    counters = Counters(path, now=lambda: 7.0)
    counters.add("hit.local", 2)
    counters.close()
    assert read_counters(path) == {"since": 7, "hit.local": 2}
    counters.add("builds.reported")
    assert read_counters(path) == {"since": 7, "hit.local": 2, "builds.reported": 1}
    later = Counters(path, now=lambda: 9.0)
    later.close()
    assert later.snapshot() == {"since": 7, "hit.local": 2, "builds.reported": 1}
