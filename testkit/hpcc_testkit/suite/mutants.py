"""Each test proves something: it fails against a copy of the source without the check it is of."""

from __future__ import annotations

import compileall
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final, NamedTuple

_COPIED: Final = ("src", "testkit", "guest", "native", "launcher", "tools")
_TESTS_FAILED: Final = 1
# Under pytest's own for a test, so that what is reported is which case hung.
_SECONDS: Final = 110


class Case(NamedTuple):
    """A check in `file`, the text it is replaced by, and the test that must notice.

    `file` is relative to `src/hpcc`, or to the root where it begins with `native/`.
    """

    file: str
    check: str
    without: str
    test: str


class Mutants:
    """A copy of the source below `directory`, which misses one check at a time."""

    def __init__(self, root: Path, directory: Path) -> None:
        self._root = root
        self._directory = directory
        for name in _COPIED:
            shutil.copytree(
                root / name, directory / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        # By content: a file is changed and put back within a second, and may keep its size.
        compileall.compile_dir(
            self.source, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )
        self.build_library()

    @property
    def source(self) -> Path:
        """What the copy is imported from."""
        return self._directory / "src"

    def build_library(self) -> None:
        """Put the copy's library where its package is found."""
        path = self._directory / "tools" / "hatch_build.py"
        spec = importlib.util.spec_from_file_location("hatch_build_of_the_copy", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.build_native(self._directory, self.source / module.LIBRARY)

    def check(self, case: Case, seconds: float = _SECONDS) -> None:
        """Take the check out, and see that the test notices.

        AssertionError: it passed, or could not run, or the text is there no more (it moved, and so
        must the case). subprocess.TimeoutExpired: it did not end, which is no notice.
        """
        with self._without(case):
            code, said = self.run([sys.executable, "-m", "pytest", *_OPTIONS, case.test], seconds)
        assert code == _TESTS_FAILED, f"not noticed:\n{said[-2000:]}"
        assert "failed" in said, said[-2000:]

    def run(self, argv: list[str], seconds: float) -> tuple[int, str]:
        """Run a program that imports the copy; its exit code and what it printed."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        env |= {"PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            argv, cwd=self._root, env=env, text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, said

    @contextmanager
    def _without(self, case: Case) -> Iterator[None]:
        is_native = case.file.startswith("native/")
        file = (self._directory if is_native else self.source / "hpcc") / case.file
        text = file.read_text()
        assert text.count(case.check) == 1, f"{case.file} has the check no more, or twice"
        file.write_text(text.replace(case.check, case.without))
        try:
            if is_native:
                self.build_library()
            yield
        finally:
            file.write_text(text)
            if is_native:
                self.build_library()


_OPTIONS: Final = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
