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
from hpcc.worker.base import drain_file
from hpcc.worker.base.drain_file import DrainFiles, DrainReport, DrainRequest

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
    left = [three, three, one, Progress(worker="w1", state="drained")]

    async def look() -> Progress | None:
        return left.pop(0)

    clock = cast("Any", SimpleNamespace(monotonic=lambda: 0.0))
    assert await drain._follow(Namespace(**OPTIONS), clock, three, look) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[-1].split(",")[0] for line in said] == [
        "3 compiles left", "1 compile left", "worker w1 is drained",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "why"),
    [(None, "was restarted"), (Progress(worker="w1", state=""), "--undo")],
)
async def test_a_drain_that_did_not_last_fails(
    monkeypatch: pytest.MonkeyPatch, found: Progress | None, why: str
) -> None:
    """`drain --wait && reboot` must not cut what the next process of the worker took."""
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0.0)

    async def look() -> Progress | None:
        return found

    clock = cast("Any", SimpleNamespace(monotonic=lambda: 0.0))
    three = Progress(worker="w1", state="draining", compiles=3)
    with pytest.raises(InfrastructureError, match=why):
        await drain._follow(Namespace(**OPTIONS), clock, three, look)


@pytest.mark.parametrize("left", ["", "drained"])
async def test_the_report_of_another_process_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """The next process drains for an operator: it holds no request of this machine."""
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0.0)
    state = tmp_path / "state"
    state.mkdir()
    files, asked = DrainFiles(state), list[str]()

    def requested(_: Path, request: DrainRequest) -> None:
        asked.append(request.request)
        files.write(report(request.request, "draining"), 1)

    def shown(_: Namespace, __: Progress) -> None:
        files.clear()
        if left:
            files.write(report("", left), 2)

    monkeypatch.setattr(drain_file, "write_request", requested)
    monkeypatch.setattr(drain, "_show", shown)
    config: Any = SimpleNamespace(state=state, worker_id="w1", drain_seconds=600.0)
    with pytest.raises(InfrastructureError, match="was restarted"):
        await drain._drained_here(Namespace(**OPTIONS), config)
    assert len(asked) == 1


def report(obeyed: str, state: str) -> DrainReport:
    return DrainReport(
        obeyed=obeyed, state=state, running=1, queued=0, ends_at=0.0, by="", reason=""
    )


async def test_a_drain_that_is_late_fails() -> None:
    three = Progress(worker="w1", state="draining", compiles=3)
    times = iter([0.0, 61.0])
    clock = cast("Any", SimpleNamespace(monotonic=lambda: next(times)))

    async def look() -> Progress | None:
        return three

    with pytest.raises(InfrastructureError, match="3 compiles left"):
        await drain._follow(Namespace(**OPTIONS), clock, three, look)
