"""`make nightly` runs every test that `./test.sh` leaves out; together they run all tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcc_testkit.suite.pytest_selection import read_lock
from hpcc_testkit.suite.selection import BOUNDS, PYTEST_STAGES

ROOT = Path(__file__).resolve().parents[2]
# Collecting everything takes ten seconds on a quiet machine.
pytestmark = pytest.mark.timeout(500)


@dataclass(frozen=True)
class Collected:
    """One collection of all tests: the decision about each test, and the ids that it kept."""

    items: dict[str, dict[str, Any]]
    kept: list[str]


def collect(*arguments: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", *arguments],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return [line for line in done.stdout.split("\n") if line.startswith("tests/")]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    file = tmp_path_factory.mktemp("items") / "items.json"
    kept = collect("--select=changed", f"--items-to={file}")
    return Collected(json.loads(file.read_text()), kept)


@pytest.fixture(scope="module")
def nightly() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nightly_of_tools", ROOT / "tools/nightly.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_test_file_is_collected(collected: Collected) -> None:
    files = {node_id.partition("::")[0] for node_id in collected.items}
    there = {str(f.relative_to(ROOT)) for f in (ROOT / "tests").rglob("test_*.py")}
    assert there - files == set()


def test_the_selection_and_what_it_leaves_out_are_all_tests(collected: Collected) -> None:
    left = {node_id for node_id, item in collected.items.items() if not item["taken"]}
    assert len(collected.kept) == len(set(collected.kept))
    assert set(collected.kept) & left == set()
    assert set(collected.kept) | left == set(collected.items)


def test_only_rows_wine_and_nested_tests_are_left_out(collected: Collected) -> None:
    left = Counter(item["kind"] for item in collected.items.values() if not item["taken"])
    assert set(left) <= {kind.value for kind in BOUNDS}


def test_every_test_is_in_one_stage_and_no_stage_is_empty(
    collected: Collected, nightly: ModuleType
) -> None:
    sizes = Counter(item["stage"] for item in collected.items.values())
    assert set(sizes) == set(PYTEST_STAGES)
    options = [word for stage in nightly.STAGES for word in stage.command if "--stage" in word]
    assert sorted(options) == sorted(f"--stage={name}" for name in PYTEST_STAGES)


def test_a_stage_keeps_its_own_tests(collected: Collected) -> None:
    expected = {node_id for node_id, item in collected.items.items() if item["stage"] == "nested"}
    assert set(collect("--stage=nested", "tests/vm")) == expected


def test_items_of_every_kind_are_recognised(collected: Collected) -> None:
    kinds = Counter(item["kind"] for item in collected.items.values())
    assert all(kinds[kind] for kind in BOUNDS)
    rows = [n for n, item in collected.items.items() if item["kind"] == "mutation"]
    assert {n.split("/")[1] for n in rows} == {"mutation"}
    assert all(n in rows for n in collected.items if n.startswith("tests/mutation/"))
    assert all(
        (item["kind"] == "plain") == (not item["digest"]) for item in collected.items.values()
    )


def test_the_lock_file_is_readable() -> None:
    _, problem = read_lock(ROOT)
    assert problem == ""


def test_nightly_fits_into_ninety_minutes_if_its_stages_take_what_they_need(
    nightly: ModuleType,
) -> None:
    assert sum(stage.needs for stage in nightly.STAGES) < nightly.TOTAL_SECONDS
    assert all(stage.needs < stage.limit for stage in nightly.STAGES)
