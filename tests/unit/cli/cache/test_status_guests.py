"""The line of `hpcc status` that tells what the guests of this machine's worker do."""

from __future__ import annotations

from pathlib import Path

from hpcc.cli.cache.local import guests_lines
from hpcc.config.paths import Paths


def test_the_line_counts_guests_that_were_started_ahead_and_parked(tmp_path: Path) -> None:
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path), "HOME": str(tmp_path)}, uid=1)
    assert guests_lines(paths) == []
    state = paths.state / "runtime"
    state.mkdir(parents=True)
    (state / "guests.json").write_text(
        '{"guests": 4, "idle": 1, "started": 9, "ahead": 5, "ahead_unused": 2, "parked": 3}'
    )
    assert guests_lines(paths) == [
        (
            "guests",
            "4 now, 1 idle; 9 started, 5 of them ahead of demand (2 ended unused); 3 parked",
        )
    ]
    (state / "guests.json").write_text("{")
    assert guests_lines(paths) == []
