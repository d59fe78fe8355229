"""`make nightly` keeps stages within its time, resumes, and stores hashes of green stages only."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcc_testkit.suite import nightly_lock
from hpcc_testkit.suite.pytest_selection import LOCK, REPORTS

ROOT = Path(__file__).resolve().parents[3]
DIGEST = "a" * 32
ITEMS = {
    "tests/m.py::row": {"stage": "mutation", "digest": DIGEST},
    "tests/w.py::wine": {"stage": "windows", "digest": DIGEST},
    "tests/a.py::plain": {"stage": "fast", "digest": ""},
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nightly_stages", ROOT / "tools/nightly.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


NIGHTLY = load()
STAGES = [NIGHTLY.Stage(name, (name,), 10, 50) for name in ("fast", "mutation", "windows")]


@dataclass
class Machine:
    """A fake runner with a clock: each command takes `seconds` and ends with its exit code."""

    root: Path
    codes: dict[str, int] = field(default_factory=dict)
    seconds: float = 5
    tree: str = "tree-1"
    now: float = 0
    ran: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None

    def run(self, command: Sequence[str], limit: float) -> int | None:
        self.ran.append(command[0])
        self.now += min(self.seconds, limit)
        self.during()
        return None if self.seconds > limit else self.codes.get(command[0], 0)

    def night(self, total: float = 1000, *, restart: bool = False, items: Any = ITEMS) -> bool:
        """Run all stages, as a new process would; return whether all are green."""
        self.ran.clear()
        self.said.clear()
        nightly = NIGHTLY.Nightly(
            self.root, self.run, fingerprint=lambda: self.tree, clock=lambda: self.now,
            say=self.said.append,
        )  # fmt: skip
        if restart:
            nightly.restart()
        return bool(nightly.all_stages(STAGES, items, total))

    def lock(self) -> set[str]:
        file = self.root / LOCK
        return set(nightly_lock.parse(file.read_text())) if file.exists() else set()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "tests").mkdir()
    return Machine(tmp_path)


def test_green_stages_write_their_items_hashes(machine: Machine) -> None:
    assert machine.night()
    assert machine.ran == ["fast", "mutation", "windows"]
    assert machine.lock() == {"tests/m.py::row", "tests/w.py::wine"}


def test_a_red_stage_writes_nothing_and_the_others_still_run(machine: Machine) -> None:
    machine.codes["mutation"] = 1
    assert not machine.night()
    assert machine.ran == ["fast", "mutation", "windows"]
    assert machine.lock() == {"tests/w.py::wine"}


def test_a_second_run_takes_up_what_was_not_green(machine: Machine) -> None:
    machine.codes["mutation"] = 1
    machine.night()
    machine.codes.clear()
    assert machine.night()
    assert machine.ran == ["mutation"]
    assert machine.night()
    assert machine.ran == []


def test_another_tree_runs_everything_again(machine: Machine) -> None:
    machine.night()
    machine.tree = "tree-2"
    assert machine.night()
    assert machine.ran == ["fast", "mutation", "windows"]


def test_a_restart_runs_everything_again(machine: Machine) -> None:
    machine.night()
    assert machine.night(restart=True)
    assert machine.ran == ["fast", "mutation", "windows"]


def test_a_stage_that_does_not_fit_is_not_run_and_the_run_is_red(machine: Machine) -> None:
    assert not machine.night(total=14)
    assert machine.ran == ["fast"]
    assert any("mutation" in line and "not run" in line for line in machine.said)
    assert machine.lock() == set()
    assert machine.night()
    assert machine.ran == ["mutation", "windows"]


def test_a_stage_is_stopped_at_its_limit_and_at_the_end_of_the_whole(machine: Machine) -> None:
    machine.seconds = 80
    assert not machine.night(total=75)
    assert machine.ran == ["fast", "mutation"]
    assert machine.now == 75
    assert any("stopped after 50 s" in line for line in machine.said)
    assert any("stopped after 25 s" in line for line in machine.said)


def test_a_stage_during_which_the_tree_changed_is_red(machine: Machine) -> None:
    def edit() -> None:
        machine.tree += "'"

    machine.during = edit
    assert not machine.night()
    assert machine.lock() == set()


def test_a_green_stage_drops_items_that_are_gone(machine: Machine) -> None:
    machine.night()
    machine.tree = "tree-2"
    assert machine.night(items={n: i for n, i in ITEMS.items() if "wine" not in n})
    assert machine.lock() == {"tests/m.py::row"}


def test_a_damaged_lock_is_written_anew_from_green_stages(machine: Machine) -> None:
    (machine.root / LOCK).write_text("<<<<<<< HEAD\n")
    assert machine.night()
    assert machine.lock() == {"tests/m.py::row", "tests/w.py::wine"}
    assert any("line 1" in line for line in machine.said)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fast": 3}'])
def test_a_damaged_state_counts_as_none(machine: Machine, text: str) -> None:
    machine.night()
    (machine.root / REPORTS / "state.json").write_text(text)
    assert machine.night()
    assert machine.ran == ["fast", "mutation", "windows"]


def test_the_fingerprint_covers_edits_new_files_and_deletions_but_not_the_lock(
    tmp_path: Path,
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "tests").mkdir()
    (tmp_path / ".gitignore").write_text("/.nightly/\n")
    (tmp_path / "a").write_text("1")
    git("add", ".")
    seen = [NIGHTLY.fingerprint(tmp_path)]
    (tmp_path / LOCK).write_text("")
    (tmp_path / ".nightly").mkdir()
    (tmp_path / ".nightly" / "state.json").write_text("{}")
    assert NIGHTLY.fingerprint(tmp_path) == seen[0]
    (tmp_path / "a").write_text("2")
    seen.append(NIGHTLY.fingerprint(tmp_path))
    (tmp_path / "new").write_text("")
    seen.append(NIGHTLY.fingerprint(tmp_path))
    (tmp_path / "new").chmod(0o755)
    seen.append(NIGHTLY.fingerprint(tmp_path))
    (tmp_path / "a").unlink()
    seen.append(NIGHTLY.fingerprint(tmp_path))
    assert len(set(seen)) == len(seen)


def test_a_command_that_takes_too_long_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NIGHTLY, "ROOT", tmp_path)
    monkeypatch.setattr(NIGHTLY, "_GRACE_SECONDS", 0.2)
    os.mkfifo(tmp_path / "held")
    reader = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = "trap '' INT; exec 3>held; sleep 300 & wait; wait"
        assert NIGHTLY.run_limited(["sh", "-c", script], 0.5) is None
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""  # the end comes when no process has it open
    finally:
        os.close(reader)
    assert NIGHTLY.run_limited(["sh", "-c", "exit 3"], 100) == 3
