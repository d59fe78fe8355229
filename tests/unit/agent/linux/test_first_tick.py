"""`hpcc-init` lets a program start only after a tick of the clock that stamps changes of files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
# The real source, with a clock that changes at the third sleep, or never.
HARNESS = """
#define _GNU_SOURCE
#include <time.h>
static int sleeps, changes_at;
static int fake_gettime(clockid_t clock, struct timespec *t) {
    t->tv_sec = clock == CLOCK_REALTIME_COARSE ? 7 : 0;
    t->tv_nsec = sleeps >= changes_at ? 4000000 : 0;
    return 0;
}
static int fake_sleep(const struct timespec *t, struct timespec *rest) {
    (void)t, (void)rest;
    sleeps++;
    return 0;
}
#define clock_gettime fake_gettime
#define nanosleep fake_sleep
#define main main_of_init
#include INIT
#undef main
int main(int argc, char **argv) {
    changes_at = atoi(argv[argc - 1]);
    dup2(1, REPORT_FD);
    tick_of_start = tick();
    wait_for_next_tick();
    dprintf(1, "%d sleeps\\n", sleeps);
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tick")
    (directory / "harness.c").write_text(HARNESS)
    command = ["cc", "-w", f'-DINIT="{ROOT}/guest/init.c"', "harness.c", "-o", "program"]
    subprocess.run(command, cwd=directory, check=True)
    return directory / "program"


def test_it_waits_for_another_time(program: Path) -> None:
    done = subprocess.run([program, "3"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("3 sleeps\n", 0)


def test_nothing_runs_while_the_clock_stands_still(program: Path) -> None:
    done = subprocess.run([program, "1000000"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("stage ")
    assert done.stdout.endswith(" clock\n")
    assert done.returncode == 125


def test_the_program_waits_behind_it() -> None:
    source = (ROOT / "guest/init.c").read_text()
    words = (
        "read(GO_FD",
        "tick_of_start = tick();",
        "    if (box->waits) wait_for_next_tick();",
        'write(go[1], "g"',
    )
    said, start, wait, go = (source.index(text) for text in words)
    assert said < start < wait < go
    assert source[wait:go].count("\n") == 1
