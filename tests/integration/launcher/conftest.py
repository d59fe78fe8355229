"""A launcher built from this tree, and a directory to compile in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import (
    Bench,
    build_launcher,
    launcher_environment,
    scripted_daemon,
    stop_daemon,
)

SOURCE = "int answer(void) { return 42; }\n#warning seen\n"


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def bench(launcher: Path, tmp_path: Path) -> Iterator[Bench]:
    work = tmp_path / "w"
    work.mkdir()
    (work / "a.c").write_text(SOURCE)
    made = Bench(launcher, work, launcher_environment(tmp_path / "h"))
    yield made
    stop_daemon(made.env)


@pytest.fixture
def daemon(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    with scripted_daemon(bench.env) as process:
        yield process
