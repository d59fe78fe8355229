"""The farm simulator runs as documented on a small farm; no test asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.nightly
@pytest.mark.timeout(240)
def test_a_small_farm_is_simulated_and_every_figure_is_written(tmp_path: Path) -> None:
    out = tmp_path / "farm.json"
    done = subprocess.run(
        [sys.executable, BENCH / "farm.py", "load", "--quick", "--out", out],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        check=False, capture_output=True, text=True, timeout=220,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {f["what"]: f for f in json.loads(out.read_text())["load"]}
    assert figures["workers"]["value"] == 30
    assert figures["a route, 99 of 100"]["goal"] == 20
    for what in (
        "routes a minute",
        "heartbeats a second",
        "a route: the scheduler's CPU",
        "the scheduler's memory",
        "beside one that says nothing of the worker's machine",
        "the scheduler's CPU by the crowds'",
    ):
        assert figures[what]["value"] > 0, what


@pytest.mark.timeout(240)
def test_the_work_of_a_route_and_of_a_heartbeat_does_not_grow_with_the_farm(tmp_path: Path) -> None:
    """Bytecodes are counted, so a busy machine does not matter."""
    out = tmp_path / "farm.json"
    done = subprocess.run(
        [sys.executable, BENCH / "farm.py", "work", "--quick", "--out", out],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        check=False, capture_output=True, text=True, timeout=220,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {(f["what"], f["unit"]): f for f in json.loads(out.read_text())["work"]}
    for what in ("a route", "a heartbeat"):
        grown = figures[f"{what}: bytecodes with 30 workers by 10", "times"]
        assert grown["value"] <= grown["goal"] == 1.1
    assert figures["30 workers: a route", "bytecodes"]["value"] < 6_500
    # With what brings it to the worker's stream and back.
    assert figures["30 workers: a heartbeat", "bytecodes"]["value"] < 3_500


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_a_small_build_uses_the_workers_there_are_and_one_that_joins(tmp_path: Path) -> None:
    """The bench itself checks each object, and that each unit ran once."""
    out = tmp_path / "farm.json"
    done = subprocess.run(
        [sys.executable, BENCH / "farm.py", "scale", "--quick", "--out", out],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        check=False, capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {f["what"]: f for f in json.loads(out.read_text())["scale"]}
    assert figures["2 workers: speed-up by workers"]["goal"] == 0.9
    assert figures["2 workers: speed-up by workers"]["is_least"]
    assert figures["a worker added in mid-build is busy after, the longest of 1"]["goal"] == 2


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_the_cpu_of_a_worker_process_is_measured_with_a_stub(tmp_path: Path) -> None:
    """The bench itself checks that each compile was run by the worker."""
    out = tmp_path / "farm.json"
    done = subprocess.run(
        [sys.executable, BENCH / "farm.py", "rate", "--quick", "--out", out],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        check=False, capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {f["what"]: f["value"] for f in json.loads(out.read_text())["rate"]}
    for of, workers in (("30 headers", 1), ("30 headers, 2 worker processes", 2)):
        cost = figures[f"{of}: CPU of a compile"]
        assert figures[f"{of}: can be served, computed"] == pytest.approx(1000 * workers / cost)
        assert figures[f"{of}: most memory of a process"] > 0


def test_a_machine_serves_what_its_cores_and_its_worker_processes_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from _farm_rows import Machine

    large = Machine(vcpus=32, worker=10.0, guest=20.0, compiler=70.0)
    assert large.served() == pytest.approx(320)
    assert large.served(1) == pytest.approx(100)
    assert large.served(5) == pytest.approx(320)
    assert large.processes == 4
    assert large.share == pytest.approx(0.7)
    assert Machine(vcpus=2, worker=10.0, guest=20.0, compiler=70.0).served(1) == pytest.approx(20)


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_what_viewers_cost_is_measured_with_real_pages(tmp_path: Path) -> None:
    """The bench itself checks that each viewer saw the farm."""
    out = tmp_path / "farm.json"
    done = subprocess.run(
        [sys.executable, BENCH / "farm.py", "viewers", "--quick", "--out", out],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        check=False, capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {f["what"]: f for f in json.loads(out.read_text())["viewers"]}
    assert figures["what 10 viewers cost of one core"]["goal"] == 1
    assert figures["pages that were asked for"]["value"] >= 10
