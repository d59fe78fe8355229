"""A launcher of this tree, and a directory to compile in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.testing.launcher import ANSWER_VARIABLE, build_launcher, launcher_environment, stop_daemon

SOURCE = "int answer(void) { return 42; }\n#warning seen\n"


@dataclass
class Bench:
    """One user's hpcc in a directory of its own."""

    launcher: Path
    work: Path
    env: dict[str, str]

    def run(self, *args: str | Path, answer: str = "exec", timeout=30, **kwargs):
        """Run `hpcc ARGS…` and wait."""
        env = {**self.env, ANSWER_VARIABLE: answer, **kwargs.pop("extra_env", {})}
        kwargs.setdefault("capture_output", True)
        return subprocess.run(
            [self.launcher, *args],
            cwd=kwargs.pop("cwd", self.work),
            env=env,
            timeout=timeout,
            **kwargs,
        )

    def popen(self, *args: str | Path, answer: str = "exec", **kwargs):
        env = {**self.env, ANSWER_VARIABLE: answer, **kwargs.pop("extra_env", {})}
        return subprocess.Popen([self.launcher, *args], cwd=self.work, env=env, **kwargs)

    @property
    def run_dir(self) -> Path:
        return Path(self.env["HPCC_DIR"], "run")

    def script(self, name: str, text: str) -> Path:
        """Make an executable that stands in for a compiler."""
        path = self.work / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return path


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


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
