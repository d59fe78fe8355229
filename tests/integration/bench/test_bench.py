"""The bench runs as documented with real tools and real builds, and detects a wrong object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcc_testkit.cache.launcher import build_launcher

BENCH = Path(__file__).resolve().parents[3] / "bench"
SPREAD = {"median", "q1", "q3"}
# Real builds, pauses included; a busy machine takes its time.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


def run(script: str, *args: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        [sys.executable, BENCH / script, *args],
        env=env, check=False, capture_output=True, text=True, timeout=420,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def check_schema(report: dict[str, Any]) -> None:
    assert report["format"] == 1
    assert {"date", "cpus", "kernel", "gcc", "ccache", "sccache"} <= report["versions"].keys()
    assert report["conditions"]["scratch_file_system"] not in {"", "unknown"}
    for row in report["rows"]:
        assert row["tools"], row["key"]
        for figures in [*row["tools"].values(), *row["ratios"].values()]:
            for spread in figures.values():
                assert spread.keys() == SPREAD, row["key"]
                assert spread["q1"] <= spread["median"] <= spread["q3"], row["key"]
        for goal in row["goals"].values():
            assert goal["verdict"] in {"aim", "holds", "misses"}
    assert report["failed"] == []
    for entry in report["skipped"]:
        assert entry["what"]
        assert entry["why"]


# It builds Lua a dozen times, 67 s of a processor; the tests below run the same script in each run.
@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(450)
def test_a_quick_run_takes_every_row_and_finds_the_objects_identical(
    launcher: Path, tmp_path: Path
) -> None:
    out, scratch = tmp_path / "out.json", tmp_path / "scratch"
    scratch.mkdir()
    done = run("run.py", "--quick", "--hpcc", launcher, "--scratch", scratch, "--out", out)
    report = json.loads(out.read_text())
    check_schema(report)

    rows = {row["key"]: row for row in report["rows"]}
    expected = {"hit-10", "hit-300", "hit-10-dirs", "rate-10", "cold-headers"}
    expected |= {"content-10", "content-300"}
    skipped = {entry["what"]: entry["why"] for entry in report["skipped"]}
    if "Lua" in skipped:
        assert "cannot be fetched" in skipped["Lua"]
    else:
        expected |= {"cold-Lua", "new-daemon-Lua", "warm-Lua"}
    if "warm builds on ext4" not in skipped and "Lua" not in skipped:
        expected.add("ext4-Lua")
    assert rows.keys() == expected
    assert skipped.keys() <= {"rows with guests", "Lua", "warm builds on ext4"}, skipped

    assert "all the same" in done.stdout
    for key, row in rows.items():
        assert row["differing"] == [], key
        # The bench adds a note when hpcc's hits or misses are not those that the row measures.
        assert not [note for note in row["notes"] if note.startswith("hpcc")], row["notes"]
        if not key.startswith("new-daemon"):
            assert row["checked"] > 0, key
            # sccache's key holds the working directory, so it has no hits by content.
            peers = {"ccache"} if key.startswith("content-") else {"ccache", "sccache"}
            assert {"hpcc", *peers} <= row["tools"].keys(), key

    # Nothing is left behind: no file, no mount, no loop device, no server.
    assert list(scratch.iterdir()) == []
    assert str(scratch) not in Path("/proc/mounts").read_text()
    loops = subprocess.run(["losetup", "--list"], check=True, capture_output=True, text=True)
    assert str(scratch) not in loops.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    for name in ("one", "two"):
        (directory / f"{name}.c").write_text(f"int {name}(int x) {{ return x + 1; }}\n")
    (directory / "Makefile").write_text(
        "all: one.o two.o\n%.o: %.c\n\t$(CC) -O1 -c $< -o $@\nclean:\n\trm -f *.o\n"
    )
    return directory


def own_project(project: Path, launcher: Path, out: Path, *, expect: int) -> str:
    done = run(
        "run.py", "--hpcc", launcher, "--project", project, "--build", "make -j2 CC={cc}",
        "--clean", "make clean", "--rounds", "1", "--cold-rounds", "2", "--scratch", out.parent,
        "--out", out, expect=expect,
    )  # fmt: skip
    return done.stdout


@pytest.mark.nightly
@pytest.mark.slow
def test_a_project_of_the_users_is_built_cold_and_warm_with_every_tool(
    project: Path, launcher: Path, tmp_path: Path
) -> None:
    text = own_project(project, launcher, tmp_path / "own.json", expect=0)
    report = json.loads((tmp_path / "own.json").read_text())
    check_schema(report)
    cold, warm = report["rows"]
    assert (cold["key"], warm["key"]) == ("cold-project", "warm-project")
    assert set(cold["tools"]) == {"bare", "hpcc", "ccache", "sccache"}
    assert set(warm["tools"]) == {"hpcc", "ccache", "sccache"}
    assert (cold["checked"], cold["differing"], cold["notes"]) == (4, [], [])
    assert (warm["differing"], warm["notes"]) == ([], [])
    assert "identity" in text


# Answers what the bench asks of a launcher; its objects have a byte too many.
FAKE = """#!/bin/sh
case "$1" in
    status) echo "{\\"pid\\": $$}"; exit ;;
    stats) echo '{"hit.local": 0, "miss.local": 0}'; exit ;;
    start|stop|clean) exit ;;
esac
"$@" || exit
for word; do last=$word; done
printf x >> "$last"
"""


@pytest.mark.slow
def test_a_cache_that_writes_another_object_than_the_compiler_ends_the_bench_with_one(
    project: Path, tmp_path: Path
) -> None:
    fake = tmp_path / "fake"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    text = own_project(project, fake, tmp_path / "wrong.json", expect=1)
    assert "WRONG" in text
    assert "one.o" in text
    report = json.loads((tmp_path / "wrong.json").read_text())
    assert report["rows"][0]["differing"] == ["one.o", "two.o"]


@pytest.mark.nightly
@pytest.mark.slow
def test_the_load_generator_counts_only_hits(launcher: Path, tmp_path: Path) -> None:
    args = ("--clients", "2", "--seconds", "1", "--processes", "1,2", "--json", "--hpcc", launcher)
    found = json.loads(run("load.py", *args, "--scratch", tmp_path).stdout)
    assert [entry["processes"] for entry in found["series"]] == [1, 2]
    for entry in found["series"]:
        assert entry["hits"] > 0
        assert entry["clients"] == 2
        assert {"p50", "p90", "p99", "p99.9", "mean", "max"} == entry["latency_us"].keys()
        assert entry["daemon_cpu_us_per_hit"] > 0
    assert list(tmp_path.iterdir()) == []
