"""The trust scenarios through ccache and sccache: where they are wrong, and where they hit.

`python -m hpcc_testkit.trust.rivals [--only WORD] LAUNCHER DIRECTORY` runs every scenario bare,
through hpcc, ccache and sccache, each with its defaults and its own cache. It prints what differs
from the bare compiler and the steps where another cache hits correctly and hpcc does not. It needs
both programs; no test depends on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.scenarios import SCENARIOS
from hpcc_testkit.trust.steps import Outcome, Runner, Scenario, Seen, Step

_HITS: Final = frozenset({b"direct_cache_hit", b"preprocessed_cache_hit"})
_HIT: Final = {"hit.local": 1}


class CcacheRunner(Runner):
    """Runs scenarios through ccache; a step's counts are one hit or nothing."""

    program = b"/usr/bin/ccache"

    def __init__(self, launcher: Path, directory: Path) -> None:
        super().__init__(launcher, directory)
        self._log = directory / "stats.log"
        self._base |= {
            "CCACHE_DIR": str(directory / "cache"),
            "CCACHE_STATSLOG": str(self._log),
        }

    def ask(self, scenario: Scenario, one: Step, root: Path) -> tuple[Seen, Mapping[str, int]]:
        # Keeps equal sources of two scenarios apart.
        self._base["CCACHE_NAMESPACE"] = scenario.name
        self._log.unlink(missing_ok=True)
        seen = self.see(scenario, one, root, prefix=(self.program,))
        lines = self._log.read_bytes().splitlines() if self._log.exists() else []
        return seen, _HIT if _HITS & set(lines) else {}


class SccacheRunner(Runner):
    """Runs scenarios through sccache and a private server."""

    program = b"/usr/bin/sccache"

    def __init__(self, launcher: Path, directory: Path) -> None:
        super().__init__(launcher, directory)
        self._base |= {
            "SCCACHE_DIR": str(directory / "cache"),
            "SCCACHE_SERVER_UDS": str(directory / "server.sock"),
            "SCCACHE_IDLE_TIMEOUT": "0",
        }
        directory.mkdir(parents=True, exist_ok=True)
        self._command("--start-server")

    def ask(self, scenario: Scenario, one: Step, root: Path) -> tuple[Seen, Mapping[str, int]]:
        self._base["SCCACHE_C_CUSTOM_CACHE_BUSTER"] = scenario.name
        before = self._hits()
        seen = self.see(scenario, one, root, prefix=(self.program,))
        return seen, _HIT if self._hits() > before else {}

    def close(self) -> None:
        """End the server."""
        self._command("--stop-server")

    def _hits(self) -> int:
        stats = json.loads(self._command("--show-stats", "--stats-format=json"))["stats"]
        return sum(stats["cache_hits"]["counts"].values())

    def _command(self, *args: str) -> bytes:
        return subprocess.run(
            [os.fsdecode(self.program), *args],
            env=self._base,
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout


def compare(
    launcher: Path, directory: Path, scenarios: Sequence[Scenario]
) -> dict[str, dict[str, list[Outcome]]]:
    """Return the outcomes of every step by program and scenario."""
    found = {"hpcc": Runner(launcher, directory / "hpcc").run(scenarios)}
    found["ccache"] = CcacheRunner(launcher, directory / "ccache").run(scenarios)
    sccache = SccacheRunner(launcher, directory / "sccache")
    try:
        found["sccache"] = sccache.run(scenarios)
    finally:
        sccache.close()
    return found


def print_report(found: Mapping[str, Mapping[str, list[Outcome]]]) -> None:
    """Print the wrong results of each program, and its hits where hpcc missed."""
    ours = found["hpcc"]
    for program, outcomes in found.items():
        wrong: Counter[str] = Counter()
        by_scenario: dict[str, set[str]] = {}
        for name, steps in outcomes.items():
            for number, outcome in enumerate(steps, 1):
                kind = _kind_of(outcome)
                by_scenario.setdefault(name, set()).add(kind)
                if kind != "right":
                    print(f"{program}\t{kind}\t{name}\tstep {number}")
                elif program != "hpcc" and outcome.answer == "hit":
                    answer = ours[name][number - 1].answer
                    if answer != "hit":
                        counted = sorted(ours[name][number - 1].counted)
                        print(f"{program}\thits, hpcc: {answer}\t{name}\tstep {number}\t{counted}")
        for kinds in by_scenario.values():
            wrong[next(k for k in ("wrong object", "differs", "right") if k in kinds)] += 1
        print(f"{program}: of {len(outcomes)} scenarios {dict(wrong)}")


def _kind_of(outcome: Outcome) -> str:
    """Judge a step by contents, messages and exit code, not by modes, which sccache changes."""
    bare, cached = outcome.bare, outcome.cached
    if any(n.endswith(b".o") and _content(bare, n) != _content(cached, n) for n in bare.tree):
        return "wrong object"
    names = bare.tree.keys() | cached.tree.keys()
    is_equal = (bare.exit_code, bare.stdout, bare.stderr) == (
        cached.exit_code,
        cached.stdout,
        cached.stderr,
    ) and all(_content(bare, n) == _content(cached, n) for n in names)
    return "right" if is_equal else "differs"


def _content(seen: Seen, name: bytes) -> tuple[str, bytes] | None:
    entry = seen.tree.get(name)
    return None if entry is None else (entry[0], entry[2])


def main(argv: Sequence[str]) -> int:
    """Run the comparison and print its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="WORD", help="scenarios with this in the name"
    )
    parser.add_argument("launcher", type=Path)
    parser.add_argument("directory", type=Path)
    args = parser.parse_args(argv)
    chosen = [s for s in SCENARIOS if args.only in s.name]
    print_report(compare(args.launcher.resolve(), args.directory.resolve(), chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
