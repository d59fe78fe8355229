"""The line of `hpcc status` that tells what the guests of this machine's worker do."""

from __future__ import annotations

from pathlib import Path

from hpcc.cli.cache.local import guests_lines, sharing_lines
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


def test_a_line_tells_what_was_shared_and_what_differed() -> None:
    assert sharing_lines({"guests": 1}) == []
    said = {"sharing.published.fresh": 3, "sharing.published.agreed": 2}
    assert sharing_lines(said) == [("shared", "3 results as fresh, 2 by agreement")]
    again = {"sharing.verify.equal": 2, "sharing.verify.differs": 1}
    assert sharing_lines(said | again)[0][1].endswith("; 3 executed again in idle time")
    odd = {"sharing.disagreements": 4, "sharing.disagreements.suspects": 1}
    ((_, text),) = sharing_lines(said | odd)
    assert "4 executions gave different results, 1 of them differ from two fresh ones" in text
