"""Fixtures for both engines of the hit path, and helpers to write plans."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay import native
from hpcc.cache.replay.engine import Check, Engine, Plan
from hpcc.cache.replay.plan_bytes import encode_plan
from hpcc.cache.replay.python_engine import PythonEngine

NO_SOURCE = (0, 0)


@pytest.fixture(params=["native", "native-grouped", "python"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    if request.param == "python":
        return PythonEngine()
    if request.param == "native-grouped":
        # Every directory is opened, as where many names are in it.
        grouped = functools.partial(encode_plan, min_group=1)
        monkeypatch.setattr(native, "encode_plan", grouped)
    # Without the library this is an error, no skip: every install builds it.
    return native.load_native()


@pytest.fixture
def write(engine: Engine) -> Callable[..., int]:
    """Return a function that replays a plan with (path, content) outputs, for its outcome."""

    def run(
        *files: tuple[Path, bytes] | OutputFile,
        checks: tuple[Check, ...] = (),
        mode: int = 0o644,
        source: tuple[int, int] = NO_SOURCE,
    ) -> int:
        outputs = tuple(
            f if isinstance(f, OutputFile) else OutputFile(bytes(f[0]), f[1]) for f in files
        )
        plan = Plan(checks, outputs, mode, source, b"")
        return engine.replay(engine.prepare(plan), -1)

    return run


@pytest.fixture
def ask(write: Callable[..., int], tmp_path: Path) -> Callable[..., int]:
    """Return a function that replays a plan with these checks and returns the outcome.

    It asserts that the plan's output exists exactly if the outcome is 0.
    """

    def run(*checks: Check) -> int:
        output = tmp_path / "written-when-they-hold"
        outcome = write((output, b"new"), checks=checks)
        assert output.exists() == (outcome == 0)
        output.unlink(missing_ok=True)
        return outcome

    return run
