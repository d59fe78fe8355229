"""What the commands that drain a worker say to a person."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.cli.farm import drain
from hpcc.cli.farm.drain import Progress
from hpcc.core import CallerError, InfrastructureError

OPTIONS = {"wait": True, "undo": False, "json": False, "reason": "", "deadline": None}


async def test_a_worker_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_ANSWER_SECONDS", 0.0)
    config: Any = SimpleNamespace(state=tmp_path, worker_id="w1", drain_seconds=600.0)
    with pytest.raises(InfrastructureError, match="systemctl status hpcc-worker"):
        await drain._drained_here(Namespace(**OPTIONS), config)


@pytest.mark.parametrize("seconds", [-1.0, 86_401.0, float("nan"), float("inf")])
def test_a_deadline_is_a_time(seconds: float) -> None:
    with pytest.raises(CallerError, match="--deadline"):
        drain._seconds(Namespace(deadline=seconds), 600.0)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("", "worker w1 takes compiles"),
        ("released", "no operator drains worker w1 any more"),
        ("unheard", "worker w1 gets no routes, by ann: why; it has not answered yet"),
        ("draining", "worker w1 drains, by ann: why: 1 compile left, at most 42 s"),
        ("drained", "worker w1 is drained, by ann: why"),
    ],
)
def test_each_state_is_a_sentence(state: str, text: str) -> None:
    said = Progress(worker="w1", state=state, compiles=1, seconds_left=42.4, by="ann", reason="why")
    assert said.text == text


async def test_each_change_is_one_line_until_nothing_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0.0)
    three, one = (Progress(worker="w1", state="draining", compiles=n) for n in (3, 1))
    left: list[Progress | None] = [three, three, one, None]

    async def look() -> Progress | None:
        return left.pop(0)

    clock = cast("Any", SimpleNamespace(monotonic=lambda: 0.0))
    assert await drain._follow(Namespace(**OPTIONS), clock, three, look) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[-1].split(",")[0] for line in said] == [
        "3 compiles left", "1 compile left", "worker w1 is drained",
    ]  # fmt: skip


async def test_a_drain_that_is_late_fails() -> None:
    three = Progress(worker="w1", state="draining", compiles=3)
    times = iter([0.0, 61.0])
    clock = cast("Any", SimpleNamespace(monotonic=lambda: next(times)))

    async def look() -> Progress | None:
        return three

    with pytest.raises(InfrastructureError, match="3 compiles left"):
        await drain._follow(Namespace(**OPTIONS), clock, three, look)
