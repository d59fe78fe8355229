"""The launcher with every answer of a daemon; the compiler cannot tell that hpcc started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import (
    Bench,
    build_tool,
    counters,
    front_counters,
    scripted_daemon,
    wait_until,
)


@pytest.mark.parametrize("answer", ["exec", "run", "filter", "raise"])
def test_the_object_and_the_diagnostics_are_the_compilers_own(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str
) -> None:
    bare = subprocess.run(
        ["gcc", "-c", "a.c", "-o", "bare.o"],
        cwd=bench.work,
        env=bench.env,
        capture_output=True,
        check=True,
    )
    done = bench.run("gcc", "-c", "a.c", "-o", "a.o", answer=answer)
    assert (done.returncode, done.stdout, done.stderr) == (0, bare.stdout, bare.stderr)
    assert (bench.work / "a.o").read_bytes() == (bench.work / "bare.o").read_bytes()
    assert counters(bench.env)["begin"] == 1


def test_a_hit_prints_both_streams_and_exits_without_a_compiler(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    done = bench.run("gcc", "-c", "a.c", answer="done:3:to stdout:to stderr")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"to stdout", b"to stderr")
    assert not (bench.work / "a.o").exists()


@pytest.mark.parametrize("answer", ["exec", "run"])
def test_a_failing_compile_fails_with_the_compilers_exit_code(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str
) -> None:
    script = bench.script("cc-7", "echo out; echo err >&2; exit 7")
    done = bench.run("wrap", script, answer=answer)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_tentative_compile_that_succeeds_shows_all_it_said(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-7", 'echo out; echo "... err $*" >&2')
    done = bench.run("wrap", script, "-c", answer="tentative")
    assert (done.returncode, done.stdout) == (0, b"out\n")
    assert done.stderr == b"... err -c --tentative\n"
    assert counters(bench.env)["exit.0"] == 1


def test_a_tentative_compile_that_fails_is_not_seen_and_the_own_command_decides(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script(
        "cc-7", 'echo "out $*"; echo "err $*" >&2; test "$2" = --tentative && exit 3; exit 7'
    )
    done = bench.run("wrap", script, "-c", answer="tentative")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out -c\n", b"err -c\n")
    wait_until(lambda: "exit.3" in counters(bench.env))


def test_after_a_tentative_compile_the_own_command_has_the_users_signals(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script(
        "cc-7", 'test "$1" = --tentative && exit 3; grep -E "^Sig(Blk|Ign)" /proc/self/status'
    )
    bare = subprocess.run([script], capture_output=True, check=True).stdout
    assert bench.run("wrap", script, answer="tentative").stdout == bare


def test_a_tentative_compile_that_is_killed_dies_by_that_signal(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-7", "echo out; kill -TERM $$")
    done = bench.run("wrap", script, answer="tentative")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"out\n")


def test_the_header_lines_of_dash_h_are_filtered_and_the_warnings_stay(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    (bench.work / "b.c").write_text("#include <stdio.h>\n#warning seen\n")
    done = bench.run("gcc", "-H", "-c", "b.c", answer="filter")
    assert done.returncode == 0
    assert b"#warning seen" in done.stderr
    assert b"\n. " not in b"\n" + done.stderr


@pytest.mark.timeout(60)
def test_header_lines_are_filtered_even_when_the_daemon_dies_before_it_could(bench: Bench) -> None:
    script = bench.script(
        "cc-slow", "echo '. /usr/include/stdio.h' >&2; echo seen >&2; touch started; sleep 1"
    )
    with scripted_daemon(bench.env) as process:
        child = bench.popen("wrap", script, answer="filter", stderr=subprocess.PIPE)
        wait_until((bench.work / "started").exists)
        process.kill()
        process.wait()
        _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (0, b"seen\n")


def test_more_output_than_is_kept_passes_through_whole(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-loud", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")
    done = bench.run("wrap", script, answer="run")
    assert (len(done.stdout), len(done.stderr)) == (3_000_000, 3_000_000)
    assert counters(bench.env)["truncated"] == 1


def test_held_output_beyond_the_report_is_printed_filtered_and_whole(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script(
        "cc-loud", "yes '. /x.h' | head -n 300000 >&2; yes warn | head -n 5000 >&2"
    )
    done = bench.run("wrap", script, answer="filter")
    assert done.stderr == b"warn\n" * 5000
    assert counters(bench.env)["truncated"] == 1


@pytest.mark.parametrize("answer", ["exec", "run"])
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_compiler_killed_by_a_signal_is_a_launcher_killed_by_it(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str, number: signal.Signals
) -> None:
    script = bench.script("cc-dies", f"kill -{int(number)} $$; sleep 5")
    assert bench.run("wrap", script, answer=answer).returncode == -number
    if answer == "run":
        wait_until(lambda: counters(bench.env).get(f"signal.{int(number)}") == 1)


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("answer", ["exec", "run", "block:60"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_to_the_group_ends_everything(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str, number: signal.Signals
) -> None:
    script = bench.script("cc-long", "touch started\nexec sleep 47.11")
    child = bench.popen("wrap", script, answer=answer, start_new_session=True)
    if answer.startswith("block"):
        wait_until(lambda: counters(bench.env).get("begin") == 1)
    else:
        wait_until((bench.work / "started").exists)
    os.killpg(child.pid, number)
    assert child.wait(5) == -number
    # The shell's `touch` may still be dying, after its parent has ended.
    wait_until(lambda: not is_alive(child.pid))
    if answer.startswith("block"):
        wait_until(lambda: counters(bench.env).get("cancelled") == 1)


def test_a_signal_to_the_launcher_alone_reaches_the_compiler(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script(
        "cc-traps", "trap 'echo caught; exit 9' TERM\ntouch started\nwhile :; do sleep 0.05; done"
    )
    child = bench.popen("wrap", script, answer="run", stdout=subprocess.PIPE)
    wait_until((bench.work / "started").exists)
    child.terminate()
    out, _ = child.communicate(timeout=5)
    assert (child.returncode, out) == (9, b"caught\n")


def test_a_killed_launcher_is_abandoned_and_told_to_the_handler(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-long", "touch started\nexec sleep 2")
    child = bench.popen("wrap", script, answer="run", start_new_session=True)
    wait_until((bench.work / "started").exists)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    wait_until(lambda: counters(bench.env).get("abandon") == 1)


def test_a_reader_that_goes_away_ends_the_compiler_as_without_hpcc(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-endless", "exec yes")
    child = bench.popen("wrap", script, answer="run", stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.wait(5) == -signal.SIGPIPE


def test_a_grandchild_that_keeps_the_pipe_open_is_not_waited_for(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-forks", "(while [ ! -e over ]; do sleep 0.05; done) & echo done")
    try:
        # `run` gives up after 30 s. It waits for the end of the pipe that it passes, so this test
        # covers only the launcher's pipes.
        done = bench.run("wrap", script, answer="run", capture_output=False, stdout=subprocess.PIPE)
        assert done.stdout == b"done\n"
    finally:
        (bench.work / "over").touch()


def test_a_compiler_that_closes_its_streams_is_waited_for_and_gets_signals(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script(
        "cc-silent",
        "exec >&- 2>&-\ntrap 'exit 9' TERM\ntouch started\nwhile :; do sleep 0.05; done",
    )
    child = bench.popen("wrap", script, answer="run")
    wait_until((bench.work / "started").exists)
    assert child.poll() is None
    child.terminate()
    assert child.wait(5) == 9


@pytest.mark.parametrize("count", [254, 255, 256, 3000])
def test_every_argument_reaches_the_compiler(
    bench: Bench, daemon: subprocess.Popen[bytes], count: int
) -> None:
    script = bench.script("cc-counts", 'echo $# "$1"; shift $(($# - 1)); echo "$1"')
    names = [f"-D{number}" for number in range(count)]
    done = bench.run("wrap", script, *names, answer="run")
    assert done.stdout.split() == [b"%d" % count, b"-D0", b"-D%d" % (count - 1)]


@pytest.mark.parametrize("answer", ["exec", "run"])
def test_the_jobserver_descriptors_reach_the_compiler_and_ours_do_not(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str
) -> None:
    script = bench.script("cc-fds", "ls -l /proc/self/fd | sed -n 's/.* \\([0-9]* ->.*\\)/\\1/p'")
    reader, writer = os.pipe()
    try:
        done = bench.run("wrap", script, answer=answer, pass_fds=(reader, writer))
    finally:
        os.close(reader)
        os.close(writer)
    shown = {line.split(b" -> ")[0] for line in done.stdout.splitlines()}
    assert {b"%d" % reader, b"%d" % writer} <= shown
    assert b"socket" not in done.stdout


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_the_umask_is_told_and_kept(
    bench: Bench, daemon: subprocess.Popen[bytes], mask: int
) -> None:
    script = bench.script("cc-umask", "umask")
    done = bench.run("wrap", script, answer="run", umask=mask)
    assert int(done.stdout, 8) == mask


@pytest.mark.parametrize("answer", ["exec", "run", "filter", "done:0:out:err"])
@pytest.mark.parametrize("closed", [">&- 2>&- <&-", "<&-", ">&-", "2>&-"])
def test_closed_standard_streams_do_not_become_ours(
    bench: Bench, daemon: subprocess.Popen[bytes], closed: str, answer: str
) -> None:
    (bench.work / "a.o").write_bytes(b"")
    done = subprocess.run(
        ["sh", "-c", f"{bench.launcher} gcc -w -c a.c -o a.o {closed}"],
        cwd=bench.work,
        env={**bench.env, "HPCC_TEST_ANSWER": answer},
        timeout=20,
        check=False,
    )
    is_cut = answer.startswith("done") and ">&-" in closed.replace("2>&-", "")
    assert (done.returncode, (bench.work / "a.o").exists()) == (int(is_cut), True)


def test_disabled_means_the_daemon_is_not_asked(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    assert bench.run("gcc", "-c", "a.c", extra_env={"HPCC_DISABLE": "1"}).returncode == 0
    assert "requests" not in front_counters(bench.env)


@pytest.mark.parametrize("answer", ["exec", "run"])
def test_a_link_named_like_a_compiler_finds_the_real_one(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str
) -> None:
    bin_dir = bench.work / "bin"
    bin_dir.mkdir()
    (bin_dir / "gcc").symlink_to(bench.launcher)
    path = f"{bin_dir}:{bench.env['PATH']}"
    done = subprocess.run(
        ["gcc", "-c", "a.c"],
        cwd=bench.work,
        env={**bench.env, "PATH": path, "HPCC_TEST_ANSWER": answer},
        timeout=20,
        capture_output=True,
        check=False,
        executable=str(bin_dir / "gcc"),
    )
    assert done.returncode == 0
    assert counters(bench.env)["begin"] == 1


def test_a_second_copy_of_hpcc_on_the_path_is_no_compiler(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    other = bench.work / "other"
    other.mkdir()
    shutil.copy(bench.launcher, other / "hpcc")
    (other / "gcc").symlink_to("hpcc")
    done = bench.run("gcc", "-c", "a.c", extra_env={"PATH": f"{other}:{bench.env['PATH']}"})
    assert done.returncode == 0
    assert counters(bench.env)["begin"] == 1


@pytest.mark.parametrize("name", ["ccache", "sccache", "buildcache"])
def test_another_caches_link_on_the_path_is_no_compiler(
    bench: Bench, daemon: subprocess.Popen[bytes], name: str
) -> None:
    path = masquerade(bench, name)
    done = bench.run("gcc", "-c", "a.c", "-v", extra_env={"PATH": path})
    assert done.returncode == 0
    # The driver must not find the link either when it looks for itself on PATH.
    assert b"COLLECT_GCC=/" in done.stderr
    assert not (bench.work / "called").exists()
    assert counters(bench.env)["begin"] == 1


@pytest.mark.parametrize("name", ["distcc", "icecc"])
def test_a_distributors_link_on_the_path_is_left_in_place(
    bench: Bench, daemon: subprocess.Popen[bytes], name: str
) -> None:
    done = bench.run("gcc", "-c", "a.c", extra_env={"PATH": masquerade(bench, name)})
    assert (done.returncode, (bench.work / "called").read_text()) == (0, "gcc -c a.c\n")


def test_another_cache_is_used_where_nothing_else_is_on_the_path_or_its_path_was_given(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    directory = masquerade(bench, "ccache").partition(":")[0]
    assert bench.run("gcc", "-c", "a.c", extra_env={"PATH": directory}).returncode == 0
    assert bench.run("wrap", f"{directory}/gcc", "-v").returncode == 0
    assert (bench.work / "called").read_text() == "gcc -c a.c\ngcc -v\n"


def masquerade(bench: Bench, name: str) -> str:
    """Put a link `gcc` to a program of that name in front of PATH; the program records calls."""
    (bench.work / "masked").mkdir()
    script = bench.script(name, f'/bin/echo "${{0##*/}} $*" >> {bench.work}/called\n')
    (bench.work / "masked" / "gcc").symlink_to(script)
    return f"{bench.work}/masked:{bench.env['PATH']}"


def test_a_path_with_nothing_but_hpcc_is_an_error_that_says_so(bench: Bench) -> None:
    only = bench.work / "only"
    only.mkdir()
    (only / "gcc").symlink_to(bench.launcher)
    done = bench.run("gcc", "-c", "a.c", extra_env={"PATH": str(only)})
    assert done.returncode == 127
    assert b"is hpcc itself" in done.stderr
    direct = bench.run("wrap", only / "gcc")
    assert direct.returncode == 127


def test_a_script_that_calls_hpcc_for_ever_is_stopped(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    loop = bench.work / "loop"
    loop.mkdir()
    script = bench.script("loop/gcc", f'exec {bench.launcher} gcc "$@"')
    done = bench.run("gcc", "-c", "a.c", extra_env={"PATH": f"{script.parent}:{bench.env['PATH']}"})
    assert done.returncode == 127
    assert b"again and again" in done.stderr


def test_a_compiler_that_is_not_there_is_named(bench: Bench) -> None:
    done = bench.run("no-such-gcc", "-c", "a.c")
    assert (done.returncode, done.stderr) == (127, b"hpcc: no-such-gcc: no such compiler on PATH\n")
    done = bench.run("wrap", "./missing")
    assert done.returncode == 127
    assert b"cannot run" in done.stderr


def test_a_compiler_whose_name_a_terminal_obeys_is_named_without_it(bench: Bench) -> None:
    done = bench.run("wrap", "./\x1b]0;owned\x07\x7f\u009b31m\nforged: line\u00e9")
    assert done.returncode == 127
    shown = done.stderr.decode()
    assert shown.endswith("forged: line\u00e9: No such file or directory\n")
    assert all(c.isprintable() for c in shown[:-1])


def test_a_long_command_line_is_asked_whole(bench: Bench, daemon: subprocess.Popen[bytes]) -> None:
    # A single string may have 128 KiB and all of them a quarter of the stack (execve(2)).
    big = {f"GCC_X{i}": "x" * 120_000 for i in range(12)}
    done = bench.run("gcc", "-c", "a.c", extra_env=big)
    assert done.returncode == 0
    assert counters(bench.env)["begin"] == 1


def test_an_oversized_command_line_compiles_without_asking(
    bench: Bench, daemon: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    flags = ['-DHPCC_BUILD_ID="x"', "-DHPCC_PROTOCOL=1", "-DMAX_REQUEST_BYTES=4096u"]
    small = build_tool("hpcc.c", tmp_path / "hpcc", *flags)
    done = subprocess.run(
        [small, "gcc", "-c", "a.c", "-D" + "x" * 4096],
        cwd=bench.work,
        env=bench.env,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, (bench.work / "a.o").exists()) == (0, True)
    assert front_counters(bench.env) == {}
