"""A program starts in the agent's own tick only where the kernel tells two changes apart."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.agent.linux import ticks
from hpcc.agent.linux.ticks import tells_changes_apart


@pytest.mark.parametrize(
    ("times", "took_ns", "apart"),
    [
        ([1, 2, 3, 4, 5, 6], 1000, True),
        ([1, 1, 1, 1, 1, 1], 1000, False),
        # The tick changed in between.
        ([1, 1, 1, 2, 2, 2], 1000, False),
        # So slow that each change had a tick.
        ([1, 2, 3, 4, 5, 6], 30_000_000, False),
    ],
)
def test_it_is_seen_by_what_changes_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: list[int], took_ns: int, *, apart: bool
) -> None:
    left, clock = iter(times), iter([0, took_ns])

    def status(_: str) -> SimpleNamespace:
        return SimpleNamespace(st_ctime_ns=next(left))

    monkeypatch.setattr(
        ticks, "os", SimpleNamespace(mkdir=os.mkdir, chmod=os.chmod, rmdir=os.rmdir, stat=status)
    )
    monkeypatch.setattr(
        ticks, "time", SimpleNamespace(
            monotonic_ns=lambda: next(clock), clock_getres=lambda _: 0.004
        ),
    )  # fmt: skip
    assert tells_changes_apart(str(tmp_path)) is apart
    assert not list(tmp_path.iterdir())


def test_what_it_says_of_this_kernel_is_true(tmp_path: Path) -> None:
    """Where it says so, no two of many changes have one ctime."""
    if not tells_changes_apart(str(tmp_path)):
        return
    seen = set()
    for number in range(2000):
        os.chmod(tmp_path, 0o700 if number % 2 else 0o500)
        seen.add(tmp_path.stat().st_ctime_ns)
    assert len(seen) == 2000
