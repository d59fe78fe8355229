"""The C half of the hit path handles real, hostile, truncated and overwritten plans."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay.engine import Outcome, Plan
from hpcc.cache.replay.native import load_native
from hpcc.cache.replay.plan_bytes import encode_plan
from hpcc_testkit.cache.launcher import ROOT, build_tool
from hpcc_testkit.cache.replay_plans import write_plans

HOSTILE = sorted((Path(__file__).parent / "corpus" / "replay_plan").iterdir())
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# What native/fuzz_replay.c redirects, what it never calls, and what reaches nothing outside.
REDIRECTED = [
    "open",
    "openat",
    "close",
    "fstat",
    "lstat",
    "fstatat",
    "fstatfs",
    "syscall",
    "write",
    "ftruncate",
    "futimens",
    "fchmod",
    "unlink",
    "getxattr",
    "send",
]
NOT_CALLED = ["accept4", "recv", "poll", "getsockopt"]
HARMLESS = [
    "__errno_location",
    "geteuid",
    "getegid",
    "memchr",
    "memcpy",
    "strlen",
    "strrchr",
    "_GLOBAL_OFFSET_TABLE_",
    "__stack_chk_fail",
]
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


@needs_gcc
def test_no_plan_makes_the_library_read_or_touch_what_it_may_not(tmp_path: Path) -> None:
    program = build_tool(
        "../native/fuzz_replay.c", tmp_path / "corpus", *SANITIZERS, "-DCORPUS_MAIN"
    )
    plans = [*write_plans(tmp_path / "seeds", os.getuid()), *HOSTILE]
    done = subprocess.run(
        [program, *plans], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    outcomes = dict(line.split(" ", 1)[::-1] for line in done.stdout.splitlines())
    # Each says in its name what it leads to: a plan that gets nowhere would test nothing.
    told = {path.name: Outcome(int(outcomes[str(path)])) for path in plans}
    named = {n: next(o for o in Outcome if n.startswith(_word(o))) for n in told}
    assert told == named
    assert set(told.values()) == set(Outcome)


def _word(outcome: Outcome) -> str:
    return outcome.name.lower().replace("_", "-")


@needs_gcc
@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_the_fuzz_target_redirects_every_call_that_reaches_outside(tmp_path: Path) -> None:
    compiled = build_tool("../native/replay.c", tmp_path / "replay.o", "-c", "-fPIC")
    listed = subprocess.run(["nm", "-u", compiled], capture_output=True, text=True, check=True)
    called = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert called <= {*REDIRECTED, *NOT_CALLED, *HARMLESS}
    harness = (ROOT / "native" / "fuzz_replay.c").read_text()
    assert all(f"#define {name}(...)" in harness for name in REDIRECTED)


def test_a_plan_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    native = load_native()
    old = tmp_path / "old.d"
    outputs = (OutputFile(bytes(old), b"dep"), OutputFile(bytes(tmp_path / "a.o"), b"object"))
    plan = encode_plan(Plan((), outputs, 0o644, (0, 0), b"answer"))
    for size in range(len(plan)):
        old.write_text("old")
        assert native.replay(plan[:size], -1) == Outcome.MALFORMED
        assert [p.name for p in tmp_path.iterdir()] == ["old.d"]
        if size < 8:
            continue
        # The same with a length that is right: what was written before the end is taken away.
        cut = plan[:4] + struct.pack("<I", size) + plan[8:size]
        assert native.replay(cut, -1) == Outcome.MALFORMED
        assert {p.name for p in tmp_path.iterdir()} <= {"old.d"}
    assert native.replay(plan, -1) == Outcome.DONE
