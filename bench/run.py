"""The figures of docs/performance.md: ratios, every pair taken in the same run.

usage: run.py [--rounds N] [--only hit,miss,warm,guest,up] [--out FILE]
Prints a table and writes JSON. `hit` needs ccache; `guest` and `up` need a prepared image.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _guest import guest_overhead, up_seconds
from _measure import Cost, clean_env, measure, medians, run, spawn_many
from _projects import ROOT, fetch_lua, header_tree

HPCC = Path(sys.executable).parent / "hpcc"
COMPILES_PER_ROUND = 100
_BARE = "bare compile"


@contextmanager
def daemon(directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    """A daemon of its own under `directory`; yields the environment and its pid."""
    env = clean_env(HPCC_DIR=str(directory))
    run([str(HPCC), "start"], env, Path("/"))
    status = subprocess.run(
        [str(HPCC), "status", "--json"], env=env, capture_output=True, check=True
    )
    try:
        yield env, int(json.loads(status.stdout)["pid"])
    finally:
        subprocess.run([str(HPCC), "stop"], env=env, capture_output=True, check=False)


def bench_hit(rounds: int, scratch: Path) -> list[dict[str, object]]:
    """A hit of hpcc against a hit of ccache with its defaults, for three header counts."""
    rows: list[dict[str, object]] = []
    ccache_env = clean_env(CCACHE_DIR=str(scratch / "ccache"))
    with daemon(scratch / "hpcc-hit") as (env, pid):
        for headers in (10, 300, 1000):
            tree = scratch / f"headers-{headers}"
            header_tree(tree, headers)
            args = ["gcc", "-c", "-O1", "-MD", "-MF", "main.d", "main.c", "-o", "main.o"]
            # The files must be older than the window in which a change cannot be told from none.
            for file in tree.iterdir():
                os.utime(file, (1_700_000_000, 1_700_000_000))
            subprocess.run(["sleep", "3"], check=True)
            costs: dict[str, list[Cost]] = {"hpcc": [], "ccache": []}
            for _ in range(3):
                run([str(HPCC), *args], env, tree)
                run(["ccache", *args], ccache_env, tree)
            for _ in range(rounds):
                costs["hpcc"].append(
                    measure(
                        functools.partial(
                            spawn_many, [str(HPCC), *args], env, tree, COMPILES_PER_ROUND
                        ),
                        pid,
                    )
                )
                costs["ccache"].append(
                    measure(
                        functools.partial(
                            spawn_many, ["ccache", *args], ccache_env, tree, COMPILES_PER_ROUND
                        )
                    )
                )
            rows.append(
                ratio_row(
                    f"hit, {headers} headers",
                    costs["hpcc"],
                    costs["ccache"],
                    "ccache",
                    COMPILES_PER_ROUND,
                )
            )
    return rows


def bench_miss(rounds: int, scratch: Path) -> list[dict[str, object]]:
    """A cold build of Lua through hpcc against the bare compiler."""
    lua = fetch_lua(scratch / "lua")
    make = ["make", "-C", "src", "-j2", "o", "SYSCFLAGS=-DLUA_USE_POSIX"]
    costs: dict[str, list[Cost]] = {"hpcc": [], "bare": []}
    with daemon(scratch / "hpcc-miss") as (env, pid):
        work = functools.partial(run, [*make, f"CC={HPCC} gcc -std=gnu99"], env, lua)
        for _ in range(rounds + 1):
            run(["make", "-C", "src", "clean"], clean_env(), lua)
            costs["bare"].append(
                measure(lambda: run([*make, "CC=gcc -std=gnu99"], clean_env(), lua))
            )
            bare = objects(lua)
            run(["make", "-C", "src", "clean"], clean_env(), lua)
            run([str(HPCC), "clean"], env, lua)
            costs["hpcc"].append(measure(work, pid))
            if objects(lua) != bare:
                raise SystemExit("bench: an object differs from the bare compile")
    # The first build of a new daemon asks the compiler about itself, once; later ones do not.
    return [
        ratio_row(
            "local miss, Lua -j2, new daemon", costs["hpcc"][:1], costs["bare"][:1], _BARE, 1
        ),
        ratio_row("local miss, Lua -j2", costs["hpcc"][1:], costs["bare"][1:], _BARE, 1),
    ]


def bench_warm(rounds: int, scratch: Path) -> list[dict[str, object]]:
    """A build of Lua that is all hits, of hpcc and of ccache in turn."""
    lua = fetch_lua(scratch / "lua-warm")
    # Older than the window in which a change cannot be told from none.
    for file in (lua / "src").iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    make = ["make", "-C", "src", "-j2", "o", "SYSCFLAGS=-DLUA_USE_POSIX"]
    ccache_env = clean_env(CCACHE_DIR=str(scratch / "ccache-warm"))
    costs: dict[str, list[Cost]] = {"hpcc": [], "ccache": []}
    with daemon(scratch / "hpcc-warm") as (env, pid):
        for number in range(-1, rounds):
            for name, wrapper, its_env, its_pid in (
                ("hpcc", str(HPCC), env, pid),
                ("ccache", "ccache", ccache_env, None),
            ):
                run(["make", "-C", "src", "clean"], clean_env(), lua)
                build = [*make, f"CC={wrapper} gcc -std=gnu99"]
                cost = measure(functools.partial(run, build, its_env, lua), its_pid)
                if number >= 0:  # the first one filled the cache
                    costs[name].append(cost)
            if number < 0:
                subprocess.run(["sleep", "3"], check=True)
    return [
        ratio_row("warm build, Lua -j2, make included", costs["hpcc"], costs["ccache"], "ccache", 1)
    ]


def objects(tree: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((tree / "src").glob("*.o"))}


def ratio_row(
    name: str, ours: list[Cost], theirs: list[Cost], against: str, per: int
) -> dict[str, object]:
    a, b = medians(ours), medians(theirs)
    return {
        "what": name, "against": against,
        "cpu_ms": round(a.cpu / per * 1e3, 3), "their_cpu_ms": round(b.cpu / per * 1e3, 3),
        "wall_ms": round(a.wall / per * 1e3, 3), "their_wall_ms": round(b.wall / per * 1e3, 3),
        "cpu_ratio": round(a.cpu / b.cpu, 3), "wall_ratio": round(a.wall / b.wall, 3),
    }  # fmt: skip


def versions() -> dict[str, str]:
    def first(*argv: str) -> str:
        try:
            out = subprocess.run(argv, capture_output=True, check=False, text=True).stdout
        except OSError:
            return "absent"
        return out.splitlines()[0] if out else "absent"

    return {
        "date": datetime.now(UTC).date().isoformat(), "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "gcc": first("gcc", "--version"), "ccache": first("ccache", "--version"),
        "qemu": first("qemu-system-x86_64", "--version"), "python": platform.python_version(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="hit,miss,warm,guest,up")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/local.json")
    args = parser.parse_args()
    wanted, rows = set(args.only.split(",")), []
    with tempfile.TemporaryDirectory(prefix="hpcc-bench-") as directory:
        scratch = Path(directory)
        if "hit" in wanted:
            rows += bench_hit(args.rounds, scratch)
        if "warm" in wanted:
            rows += bench_warm(args.rounds, scratch)
        if "miss" in wanted:
            rows += bench_miss(max(3, args.rounds // 2), scratch)
        if "up" in wanted:
            rows += up_seconds(HPCC)
        if "guest" in wanted:
            rows += guest_overhead(scratch)
    result = {"versions": versions(), "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
