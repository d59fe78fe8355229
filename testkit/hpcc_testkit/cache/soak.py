"""Edits programs at random, compiles each bare and through hpcc, and compares byte for byte.

`make soak` runs it; `python -m hpcc_testkit.cache.soak --operations 10000` does so by hand. The
printed seed repeats the same edits and the same damage; only results that depend on the clock may
differ.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hpcc_testkit.cache.launcher import build_launcher
from hpcc_testkit.cache.soak_mischief import Mischief, is_any
from hpcc_testkit.cache.soak_pool import Pool, find_compilers, generate_programs
from hpcc_testkit.cache.soak_trees import (
    CloneTree,
    MarkedTree,
    ProjectTree,
    SmallTree,
    Tree,
    inputs_of,
    reset_outputs,
    times_of_once,
)
from hpcc_testkit.trust.steps import (
    QUIET_SECONDS,
    Outcome,
    Runner,
    Scenario,
    Seen,
    Step,
    differences,
)

_C: Final = ("gcc-12", "gcc-14", "clang-14", "clang-19", "gcc", "clang")
_CXX: Final = ("g++-12", "g++-14", "clang++-14", "clang++-19", "g++", "clang++")
_TREES: Final = 20
_CLONED: Final = 2
_PROGRAMS: Final = 8
# More than a tick of the file system's clock: hpcc keeps no result of younger inputs.
_SHORT_SECONDS: Final = 0.1
_MISCHIEF: Final = 0.25
_KILLED_MEANWHILE: Final = 0.01
_ANSWERS: Final = ("hit.", "miss.", "bypass.")
_COUNTED_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_REMEMBERED: Final = 500
# On a busy machine a daemon is too slow now and then, and the launcher runs the compiler itself.
# So many compiles in a row may end so; after each a daemon is started.
_MOST_ALONE: Final = 5
# Gauges, not counters.
_GAUGES: Final = frozenset({"since", "store.entries", "store.size_bytes"})


@dataclass(slots=True)
class Tally:
    """Counts of compiles and answers; `deeds` are restarts, kills and damage.

    `alone` are compiles that no daemon answered in time.
    """

    operations: int = 0
    must_hits: int = 0
    alone: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)


class _Soak:
    """One run: trees, a runner with its daemon, and the expected answers."""

    def __init__(
        self, launcher: Path, directory: Path, *, seed: int, sources: Path | None = None
    ) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a repeatable sequence is the point
        self._runner = Runner(launcher, directory)
        self._prefix = (os.fsencode(launcher), b"wrap")
        self._mischief = Mischief(launcher, self._runner.env, self._chance)
        self._seed = seed
        programs = generate_programs(directory / "csmith", seed=seed, count=_PROGRAMS)
        self._pool = Pool(find_compilers(_C), find_compilers(_CXX), programs)
        self._trees: list[Tree] = [
            SmallTree(f"t{n}", directory / "w" / f"t{n}", self._chance, self._pool)
            for n in range(_TREES)
        ]
        for number in range(_CLONED):
            name = f"m{number}"
            marked = MarkedTree(name, directory / "w" / name, self._chance, self._pool)
            clone = CloneTree(f"{name}-clone", directory / "w" / f"{name}-clone", marked)
            self._trees += [marked, clone]
        if sources is not None:
            root = directory / "w" / "project"
            self._trees.append(
                ProjectTree("project", root, self._chance, self._pool, sources=sources)
            )
        self._bare: dict[Hashable, Seen] = {}
        self._alone = 0  # compiles in a row that no daemon answered
        self.tally = Tally()

    def run_round(self) -> None:
        """Edit every tree, wait, and compile each; sometimes do damage first."""
        chance = self._chance
        steps = [tree.edit() for tree in self._trees]
        name, deed = self._mischief.pick()
        if chance.random() < _MISCHIEF:
            self.tally.deeds[name] += 1
            deed()
        threading.Event().wait(chance.choice((_SHORT_SECONDS, QUIET_SECONDS)))
        for tree, one in zip(self._trees, steps, strict=True):
            has_old, times = chance.random() < 0.5, chance.choice((1, 1, 2, 2, 3))
            is_killed = chance.random() < _KILLED_MEANWHILE
            scenario = Scenario(name="soak", steps=())
            bare = self._see_bare(scenario, one, tree, has_old=has_old)
            # The flags decide whether a compile below a marker is shared.
            other = replace(one, argv=(*one.argv, *tree.maps))
            mapped = self._see_bare(scenario, other, tree, has_old=has_old)
            for _ in range(times):
                reset_outputs(tree, has_old=has_old)
                if is_killed:
                    cached = self._ask_while_killed(scenario, one, tree)
                else:
                    cached = self._ask(scenario, one, tree)
                seen = Outcome(bare=bare, cached=cached[0], counted=cached[1])
                if differences(replace(seen, bare=mapped)):
                    self._check(one, differences(seen))

    def stop(self) -> None:
        self._mischief.stop()

    def _see_bare(self, scenario: Scenario, one: Step, tree: Tree, *, has_old: bool) -> Seen:
        """Compile bare, or return the remembered result of this state, because states come back."""
        key = (tree.name, one.argv, tuple(sorted(one.env.items())), one.umask, has_old)
        whole = (key, inputs_of(tree.root), times_of_once(tree.root))
        if len(self._bare) > _REMEMBERED:
            self._bare.clear()
        if whole not in self._bare:
            reset_outputs(tree, has_old=has_old)
            self._bare[whole] = self._runner.see(scenario, one, tree.root, prefix=())
        return self._bare[whole]

    def _ask(self, scenario: Scenario, one: Step, tree: Tree) -> tuple[Seen, Mapping[str, int]]:
        expected = self._mischief.expected
        command, state = (tree.name, one.argv, tuple(sorted(one.env.items()))), inputs_of(tree.root)
        must_hit = expected.must_hit(command, state)
        before = self._mischief.counted()
        seen = self._runner.see(scenario, one, tree.root, prefix=self._prefix)
        counted = self._counted_since(before)
        expected.note(command, state, counted)
        self.tally.operations += 1
        self.tally.must_hits += must_hit and is_any(counted, "hit.")
        self.tally.counted.update(counted)
        # After a command failed often under a marker, hpcc uses another key for it.
        has_other_key = "private.fails-with-maps" in counted
        if is_any(counted, "launcher.") and not any(is_any(counted, kind) for kind in _ANSWERS):
            self.tally.alone += 1
            self._alone += 1
            if self._alone > _MOST_ALONE:
                self._check(one, [f"no daemon answered {self._alone} compiles: {counted}"])
            self._mischief.revive()
            return seen, counted
        self._alone = 0
        if must_hit and not is_any(counted, "hit.") and not has_other_key:
            self._check(one, [f"a state that is stored was no hit: {counted}"])
        return seen, counted

    def _counted_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return what was counted. A helper process reports its hits with its next flush."""
        deadline = time.monotonic() + _COUNTED_SECONDS
        while True:
            counted = {
                name: value - before.get(name, 0)
                for name, value in self._mischief.counted().items()
                if name not in _GAUGES and value > before.get(name, 0)
            }
            if any(is_any(counted, kind) for kind in _ANSWERS) or time.monotonic() > deadline:
                return counted
            threading.Event().wait(_POLL_SECONDS)

    def _ask_while_killed(
        self, scenario: Scenario, one: Step, tree: Tree
    ) -> tuple[Seen, Mapping[str, int]]:
        timer = self._mischief.kill_soon()
        seen = self._runner.see(scenario, one, tree.root, prefix=self._prefix)
        timer.join()
        # It is unknown whether the result was written before the daemon ended.
        self._mischief.expected.forget()
        self.tally.operations += 1
        self.tally.deeds["kill during a compile"] += 1
        return seen, {}

    def _check(self, one: Step, problems: list[str]) -> None:
        where = f"seed {self._seed}, operation {self.tally.operations}"
        assert not problems, f"{where}, {one.env}, {one.argv}: " + "\n".join(problems)


def soak(
    launcher: Path,
    directory: Path,
    *,
    seed: int,
    operations: int,
    seconds: float = float("inf"),
    sources: Path | None = None,
) -> Tally:
    """Compile `operations` times through hpcc, or for about `seconds`, and return what happened.

    `sources` is the tree of a real project that is edited along with the small ones.

    Raises:
        AssertionError: a result differed or a hit was missing; seed and operation are in the text.
    """
    run = _Soak(launcher, directory, seed=seed, sources=sources)
    deadline = time.monotonic() + seconds
    try:
        while run.tally.operations < operations and time.monotonic() < deadline:
            run.run_round()
    finally:
        run.stop()
    return run.tally


def _describe_machine(directory: Path) -> str:
    """Return one line for each compiler; csmith writes a file into its working directory."""
    lines = []
    for name in (*find_compilers(_C), *find_compilers(_CXX), *find_compilers(("csmith",))):
        ended = subprocess.run(
            [name, "--version"], cwd=directory, capture_output=True, text=True, check=False
        )
        lines.append(f"{name}: {ended.stdout.partition(chr(10))[0]}")
    return "\n".join(lines)


def _run_jobs(args: argparse.Namespace) -> int:
    """Run `jobs` soaks side by side, each with its own seed, and end all when one fails."""
    share = -(-args.operations // args.jobs)
    own = [sys.executable, "-m", "hpcc_testkit.cache.soak", "--jobs", "1"]
    own += ["--operations", str(share), "--seconds", str(args.seconds)]
    if args.sources is not None:
        own += ["--sources", str(args.sources)]
    running = [
        subprocess.Popen([*own, "--seed", str(args.seed + number)]) for number in range(args.jobs)
    ]
    try:
        while any(one.poll() is None for one in running):
            if any(one.poll() for one in running):
                return 1
            threading.Event().wait(1)
    finally:
        for one in running:
            # As a key would: a soak that is interrupted ends its daemon.
            one.send_signal(signal.SIGINT)
            one.wait()
    return int(any(one.returncode for one in running))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="soaks side by side, with shares"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end earlier")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--sources", type=Path, help="a real project, edited too")
    args = parser.parse_args()
    if args.jobs > 1:
        return _run_jobs(args)
    directory = Path(tempfile.mkdtemp(prefix="hpcc-soak-"))
    sys.stdout.write(f"seed {args.seed}, in {directory}\n{_describe_machine(directory)}\n")
    sys.stdout.flush()
    launcher = build_launcher(directory / "launcher")
    # After a failure the trees, the store and the daemon's log are kept.
    tally = soak(
        launcher,
        directory,
        seed=args.seed,
        operations=args.operations,
        seconds=args.seconds,
        sources=args.sources,
    )
    shutil.rmtree(directory)
    sys.stdout.write(f"{tally.operations:10} operations, none different\n")
    sys.stdout.write(f"{tally.must_hits:10} stored states that came back, each a hit\n")
    sys.stdout.write(f"{tally.alone:10} compiles that no daemon answered in time\n")
    for table in (tally.deeds, tally.counted):
        for name, count in sorted(table.items()):
            sys.stdout.write(f"{count:10} {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
