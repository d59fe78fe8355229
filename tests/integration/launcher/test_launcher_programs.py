"""hpcc runs any program unchanged, whatever its name."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import Bench, counters

# Prints how it was called and what came on stdin.
SHOW = """printf '%s|' "${0##*/}" "$@"; cat; echo err >&2; exit 5"""
NAMES = ["gfortran", "nvcc", "emcc", "icx", "rustc", "ldc2", "clang-tidy", "sccache", "ccache"]


def on_path(bench: Bench, name: str, text: str = SHOW) -> dict[str, str]:
    """Put a program of this name at the front of PATH."""
    (bench.work / "bin").mkdir(exist_ok=True)
    bench.script(f"bin/{name}", text)
    return {"PATH": f"{bench.work}/bin:{bench.env['PATH']}"}


@pytest.mark.parametrize("name", NAMES)
def test_a_program_runs_by_its_bare_name_and_by_its_path(
    bench: Bench, daemon: subprocess.Popen[bytes], name: str
) -> None:
    env = on_path(bench, name)
    for word in (name, bench.work / "bin" / name):
        done = bench.run(word, "-c", "a b", "", extra_env=env, input=b"in")
        expected = f"{name}|-c|a b||in".encode()
        assert (done.returncode, done.stdout, done.stderr) == (5, expected, b"err\n")
    assert counters(bench.env)["begin"] == 2


def test_a_program_gets_the_name_by_which_it_was_called(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    source = bench.work / "name.c"
    source.write_text(
        "int puts(const char *); int main(int c, char **v) { return puts(v[0]) < 0; }"
    )
    for name in ("ccache", "tool"):  # another cache is what the user asked for, not in the way
        env = on_path(bench, name)
        program = bench.work / "bin" / name
        program.unlink()
        subprocess.run(["gcc", source, "-o", program], check=True)
        assert bench.run(name, extra_env=env).stdout.decode().strip() == name


def test_a_cache_behind_hpcc_runs_the_compiler(
    bench: Bench, daemon: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    bare = [["gcc", "-c", "a.c", "-o", "bare.o"], ["ccache", "gcc", "-c", "a.c", "-o", "a.o"]]
    subprocess.run(bare[0], cwd=bench.work, env=bench.env, check=True, capture_output=True)
    done = bench.run(*bare[1], extra_env={"CCACHE_DIR": str(tmp_path / "ccache")})
    assert done.returncode == 0
    assert (bench.work / "a.o").read_bytes() == (bench.work / "bare.o").read_bytes()


def test_a_signal_that_ends_the_program_ends_hpcc(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    done = bench.run("tool", extra_env=on_path(bench, "tool", "kill -TERM $$"))
    assert done.returncode == -signal.SIGTERM


def test_a_script_without_an_interpreter_line_runs_as_under_a_shell(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    env = on_path(bench, "tool")
    (bench.work / "bin/tool").write_text('printf "%s|" "$@"; exit 3')
    for word in ("tool", bench.work / "bin/tool"):
        done = bench.run(word, "x", "y z", extra_env=env)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"x|y z|", b"")


def test_a_command_of_hpcc_wins_over_a_program_of_its_name(bench: Bench) -> None:
    env = on_path(bench, "whoami")
    assert bench.run("whoami", "--help", extra_env=env).stdout.startswith(b"usage: hpcc whoami")
    assert bench.run("wrap", "whoami", extra_env=env, input=b"").returncode == 5


def test_a_typing_error_without_a_program_of_that_name_is_explained(bench: Bench) -> None:
    (bench.work / "statsu").mkdir()  # a directory is not a program
    done = bench.run("statsu", extra_env={"PATH": f"{bench.work}:{bench.env['PATH']}"})
    assert done.returncode == 2
    assert b"did you mean `hpcc stats`?" in done.stderr


def test_a_link_of_any_name_to_hpcc_runs_the_program_behind_it(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    env = on_path(bench, "gfortran")
    masked = bench.work / "masked"
    masked.mkdir()
    (masked / "gfortran").symlink_to(bench.launcher)
    done = subprocess.run(
        [masked / "gfortran", "-c", "x.f90"],
        env={**bench.env, "PATH": f"{masked}:{env['PATH']}"},
        input=b"",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, b"gfortran|-c|x.f90|")


def test_a_program_runs_without_a_daemon(bench: Bench) -> None:
    env = {**on_path(bench, "rustc"), "HPCC_DISABLE": "1"}
    assert bench.run("rustc", "x.rs", extra_env=env, input=b"").stdout == b"rustc|x.rs|"
