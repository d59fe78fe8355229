"""hpcc-agent.exe under Wine: its commands, and that no process outlives a compile's job."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcc.runtime.windows.layers.layer import AGENT_STUB_SOURCE
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = pytest.mark.timeout(500)
_ECHO = r"""
#include <stdio.h>
#include <windows.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) printf("[%s]\n", argv[i]);
    return argc;
}
"""


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("echo")
    (directory / "echo.c").write_text(_ECHO)
    return cross_build(directory / "echo.c", directory / "echo.exe")


def wait_until_gone(wine: Wine, word: str) -> None:
    deadline = time.monotonic() + 60
    while wine.processes(word):
        assert time.monotonic() < deadline, wine.processes(word)
        time.sleep(0.05)


def test_two_builds_are_the_same_bytes(stub: Path, tmp_path: Path) -> None:
    again = cross_build(AGENT_STUB_SOURCE, tmp_path / "hpcc-agent.exe", "-lshell32")
    assert again.read_bytes() == stub.read_bytes()


def test_a_program_runs_and_its_exit_code_is_reported(
    wine: Wine, stub: Path, echo: Path, tmp_path: Path
) -> None:
    done = wine.run(stub, "run", "--report", "r", "--", str(echo), "a", cwd=tmp_path)
    assert done.returncode == 2, done
    assert done.stdout.split() == [b"[a]"]
    assert (tmp_path / "r").read_bytes().startswith(b"done 2 ")


@pytest.mark.parametrize(
    "argument", ["", "a b", 'a"b', "a\\", "a b\\", 'a\\"b', "\\\\s\\t", 'x"" y', "*", "é"]
)
def test_arguments_arrive_as_they_were(
    wine: Wine, stub: Path, echo: Path, tmp_path: Path, argument: str
) -> None:
    if argument == "*":
        (tmp_path / "f").touch()
    bare = wine.run(echo, argument, "end", cwd=tmp_path)
    done = wine.run(stub, "run", "--", str(echo), argument, "end", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (bare.returncode, bare.stdout)
    assert done.stdout.split()[-1] == b"[end]"


def test_a_deadline_ends_the_whole_tree_and_says_so(wine: Wine, stub: Path, tmp_path: Path) -> None:
    local = tmp_path / "tree-of-the-deadline.exe"
    local.write_bytes(stub.read_bytes())
    nested = [
        "--timeout-ms",
        "2000",
        "--report",
        "r",
        "--",
        str(local),
        "run",
        "--",
        str(local),
        "pause",
    ]
    with wine.start(local, "run", *nested, cwd=tmp_path) as process:
        assert process.wait(100) == 124
    assert (tmp_path / "r").read_bytes().startswith(b"deadline 124 ")
    wait_until_gone(wine, local.name)


def test_a_killed_stub_takes_its_tree_along(wine: Wine, stub: Path, tmp_path: Path) -> None:
    """A cancel is the agent's TerminateProcess of the stub: its last handle closes the job."""
    local = tmp_path / "tree-of-the-killed.exe"
    local.write_bytes(stub.read_bytes())
    with wine.start(local, "run", "--", str(local), "pause", cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(wine.processes("pause")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait(60)
        wait_until_gone(wine, local.name)


def test_pause_ends_with_its_input(wine: Wine, stub: Path, tmp_path: Path) -> None:
    with wine.start(stub, "pause", cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_program_that_is_not_there_is_reported(wine: Wine, stub: Path, tmp_path: Path) -> None:
    done = wine.run(stub, "run", "--report", "r", "--", "C:\\nowhere.exe", cwd=tmp_path)
    assert done.returncode == 127
    assert (tmp_path / "r").read_bytes().split()[0] == b"spawn"


def test_a_report_that_is_there_already_is_not_written(
    wine: Wine, stub: Path, echo: Path, tmp_path: Path
) -> None:
    (tmp_path / "r").write_text("mine")
    done = wine.run(stub, "run", "--report", "r", "--", str(echo), cwd=tmp_path)
    assert done.returncode == 127
    assert (tmp_path / "r").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [(), ("jump",), ("run",), ("run", "--"), ("run", "--memory", "x", "--", "a"), ("run", "--memory"),
     ("run", "--timeout-ms", "99999999999999999999", "--", "a"), ("run", "--odd", "1", "--", "a"), ("run", "--restricted", "high", "--", "a")],
)  # fmt: skip
def test_nonsense_is_refused(
    wine: Wine, stub: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert wine.run(stub, *arguments, cwd=tmp_path).returncode == 2


def test_serve_without_a_python_says_so(wine: Wine, stub: Path, tmp_path: Path) -> None:
    done = wine.run(stub, "serve", "--port", "1", cwd=tmp_path)
    assert done.returncode == 127
    assert b"python" in done.stderr


def test_serve_starts_what_lies_beside_it(
    wine: Wine, stub: Path, echo: Path, tmp_path: Path
) -> None:
    """The program in python\\ gets Python's isolation flags, app.pyz and the stub's arguments."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python/python.exe").write_bytes(echo.read_bytes())
    local = tmp_path / "hpcc-agent.exe"
    local.write_bytes(stub.read_bytes())
    done = wine.run(local, "serve", "--port", "17727", cwd=tmp_path)
    words = done.stdout.decode().split()
    assert words[:3] == ["[-I]", "[-B]", "[-u]"], done
    assert words[3].endswith("\\app.pyz]")
    assert words[4:] == ["[--port]", "[17727]"]
    assert done.returncode == 7
