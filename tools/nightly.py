#!/usr/bin/env python3
"""Run everything in stages, within 90 minutes on two cores; resume where the last run stopped.

usage: nightly.py [--restart]

Each stage is one command with its own time limit. `.nightly/state.json` keeps for each stage the
result and the fingerprint of the tree that it was for; a stage that was green for the same tree is
not run again. After a green stage of pytest the hashes of its mutation rows, Wine tests and nested
tests go to tests/nightly.lock, which `./test.sh` reads to leave out what has not changed since.

A red stage never writes to the lock, and neither does one during which the tree changed: its tests
may have run against either version. A stage that does not fit into the time that is left is not
run. Both make the run red.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcc_testkit.suite import nightly_lock
from hpcc_testkit.suite.pytest_selection import LOCK, REPORTS, read_lock
from hpcc_testkit.suite.selection import PYTEST_STAGES

ROOT = Path(__file__).resolve().parent.parent
TOTAL_SECONDS: Final = 90 * 60
_COLLECT_SECONDS: Final = 300
_GRACE_SECONDS: Final = 30
_TWO_WORKERS: Final = ("-n", "2", "--no-loadscope-reorder")
_OF_MAKE: Final = frozenset({"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "ARGS"})

# Runs a command for at most so many seconds; returns its exit code, or None if it was stopped.
Runner = Callable[[Sequence[str], float], int | None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A command, the seconds it needs on two quiet cores, and its time limit in seconds.

    A stage starts only if `needs` seconds are left, so that none starts in vain.
    """

    name: str
    command: tuple[str, ...]
    needs: float
    limit: float


def _pytest(name: str, needs: float, limit: float, workers: Sequence[str] = _TWO_WORKERS) -> Stage:
    report = f"{REPORTS}/{name}.xml"
    options = ("-q", "--durations=10", f"--junitxml={report}", f"--stage={name}", *workers)
    return Stage(name, (sys.executable, "-m", "pytest", *options), needs, limit)


STAGES: Final = (
    Stage("static", ("make", "--no-print-directory", "static"), 30, 300),
    Stage("dependencies", ("make", "--no-print-directory", "audit-deps"), 30, 420),
    _pytest("fast", 60, 600),
    _pytest("integration", 600, 2700),
    _pytest("mutation", 120, 1800),
    _pytest("windows", 60, 900),
    _pytest("guests", 300, 2400),
    # One process: all tests share one emulated machine, which belongs to a pytest session.
    _pytest("nested", 120, 1500, workers=()),
    Stage("demo", ("./demo.sh",), 60, 900),
)


class Nightly:
    """One run over the stages. Everything that touches the machine is a parameter."""

    def __init__(
        self,
        root: Path,
        run: Runner,
        *,
        fingerprint: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = print,
    ) -> None:
        self._root, self._run, self._fingerprint = root, run, fingerprint
        self._clock, self._say = clock, say
        self._state_file = root / REPORTS / "state.json"
        self._state = _read_state(self._state_file)

    def restart(self) -> None:
        """Forget all results."""
        self._state = {}

    def all_stages(self, stages: Sequence[Stage], items: Mapping[str, Any], total: float) -> bool:
        """Run the stages that are not green for this tree; returns whether all are.

        Args:
            stages: in the order to run them.
            items: stage, kind and digest of each test, as `--items-to` writes them.
            total: seconds for all stages of this call.
        """
        started = self._clock()
        rows = []
        for stage in stages:
            left = total - (self._clock() - started)
            rows.append((stage.name, *self._one_stage(stage, items, left)))
        spent = self._clock() - started
        self._say("")
        for name, outcome, seconds in rows:
            self._say(f"nightly: {name:12} {seconds:7.0f} s  {outcome}")
        self._say(f"nightly: {spent:.0f} s in this run, of {total:.0f} s at most")
        return all(outcome.startswith("green") for _, outcome, _ in rows)

    def _one_stage(self, stage: Stage, items: Mapping[str, Any], left: float) -> tuple[str, float]:
        tree = self._fingerprint()
        before = self._state.get(stage.name, {})
        if before.get("tree") == tree and before.get("outcome") == "green":
            return "green before, for the same tree", float(before.get("seconds", 0))
        if left < stage.needs:
            return f"not run: it needs {stage.needs:.0f} s, {max(left, 0):.0f} s were left", 0.0
        self._say(f"nightly: {stage.name}")
        started = self._clock()
        limit = min(stage.limit, left)
        code = self._run(stage.command, limit)
        seconds = self._clock() - started
        outcome = _outcome(code, limit)
        if outcome == "green" and self._fingerprint() != tree:
            outcome = "red: the tree changed during the stage"
        self._state[stage.name] = {"tree": tree, "outcome": outcome, "seconds": seconds}
        if outcome == "green":
            self._write_lock(stage.name, items)
        # After the lock: a stage that is interrupted between the two runs again.
        self._state_file.parent.mkdir(exist_ok=True)
        _write(self._state_file, json.dumps(self._state, indent=1) + "\n")
        return outcome, seconds

    def _write_lock(self, stage: str, items: Mapping[str, Any]) -> None:
        known, problem = read_lock(self._root)
        if problem:
            self._say(f"nightly: {problem}")
        existing = {node_id for node_id, item in items.items() if item["digest"]}
        green = {n: items[n]["digest"] for n in existing if items[n]["stage"] == stage}
        merged = nightly_lock.merge(known, green, existing)
        if merged != known or problem:
            _write(self._root / LOCK, nightly_lock.render(merged))


def _outcome(code: int | None, limit: float) -> str:
    if code is None:
        return f"red: stopped after {limit:.0f} s"
    return "green" if code == 0 else f"red: exit code {code}"


def _read_state(file: Path) -> dict[str, Any]:
    """Return the kept results; a damaged file counts as none, so every stage runs."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    is_sound = isinstance(found, dict) and all(isinstance(v, dict) for v in found.values())
    return found if is_sound else {}


def _write(file: Path, text: str) -> None:
    """Replace a file in one step, so that an interrupted run leaves the old or the new one."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


def fingerprint(root: Path) -> str:
    """Return a hash of all files that git tracks or would add, except the lock."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    sum_ = hashlib.sha256()
    for name in sorted(set(listed.split(b"\0")) - {b"", LOCK.encode()}):
        file = root / os.fsdecode(name)
        if file.is_symlink():
            data, mode = os.fsencode(file.readlink()), "link"
        elif file.is_file():
            data, mode = file.read_bytes(), "program" if os.access(file, os.X_OK) else "file"
        else:
            data, mode = b"", "absent"
        sum_.update(b"%s\0%s\0%s\0" % (name, mode.encode(), hashlib.sha256(data).digest()))
    return sum_.hexdigest()


def run_limited(command: Sequence[str], seconds: float) -> int | None:
    """Run a command in a process group that ends with it; returns None if its time was over."""
    # The stages run make, and ARGS of this one is not meant for them.
    env = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
    with subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True) as process:
        try:
            return process.wait(timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            # First as Ctrl-C does, so that tests end the guests and services that they started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE_SECONDS)
            if isinstance(error, KeyboardInterrupt):
                raise
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def collect(root: Path) -> dict[str, Any]:
    """Return stage, kind and digest of every test."""
    file = root / REPORTS / "items.json"
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qq", "--collect-only", f"--items-to={file}"],
        cwd=root, check=False, capture_output=True, text=True, timeout=_COLLECT_SECONDS,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"nightly: pytest cannot collect the tests\n{done.stdout[-4000:]}")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    names = [stage.name for stage in STAGES]
    parser.add_argument("--restart", action="store_true", help="run stages again that were green")
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"only these stages: {', '.join(names)}"
    )
    args = parser.parse_args()
    if unknown := sorted(set(args.stages) - set(names)):
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(names)}")
    assert {s.name for s in STAGES} >= set(PYTEST_STAGES)
    os.chdir(ROOT)
    # A tool that is missing fails its tests, and tests that build from packages run.
    os.environ.update(CI="true", HPCC_TEST_DEBIAN="1")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print(f"nightly: {len(STAGES)} stages, {TOTAL_SECONDS // 60} minutes at most", flush=True)
    nightly = Nightly(
        ROOT, run_limited, fingerprint=lambda: fingerprint(ROOT), say=lambda s: print(s, flush=True)
    )
    if args.restart:
        nightly.restart()
    stages = [stage for stage in STAGES if not args.stages or stage.name in args.stages]
    is_green = nightly.all_stages(stages, collect(ROOT), TOTAL_SECONDS)
    what = "nightly" if len(stages) == len(STAGES) else f"{len(stages)} of {len(STAGES)} stages"
    print(f"{what}: {'green' if is_green else 'RED'}; commit {LOCK} if it changed")
    return 0 if is_green else 1


if __name__ == "__main__":
    sys.exit(main())
