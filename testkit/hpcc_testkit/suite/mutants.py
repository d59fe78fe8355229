"""Mutation rows: a test must fail against a copy of the source in which its check is removed.

A row is a `Case`. `Mutants.check` removes the check from the copy, runs the test there, and puts
the check back.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final, NamedTuple

from hpcc_testkit.suite.row_client import RowServer

_COPIED: Final = ("src", "testkit", "guest", "native", "launcher", "tools")
# Shorter than pytest's timeout for a test, so that the report names the case that hung.
_SECONDS: Final = 110


class Case(NamedTuple):
    """A check in `file`, the text that replaces it, and the test that must fail.

    `file` is relative to `src/hpcc`, or to the root if it begins with `native/` or `tools/`.
    """

    file: str
    check: str
    without: str
    test: str


class Mutants:
    """A copy of the source below `directory`, from which one check at a time is removed."""

    def __init__(self, root: Path, directory: Path) -> None:
        self._root = root
        self._directory = directory
        for name in _COPIED:
            shutil.copytree(
                root / name, directory / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        # Invalidated by content: a file changes and changes back within a second, at the same size.
        compileall.compile_dir(
            self.source, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )
        self.build_library()
        self._rows = RowServer(root, directory / "rows", self._env)

    @property
    def source(self) -> Path:
        """Return the directory that the copy is imported from."""
        return self._directory / "src"

    def build_library(self) -> None:
        """Build the copy's C library next to its Python package."""
        path = self._directory / "tools" / "hatch_build.py"
        spec = importlib.util.spec_from_file_location("hatch_build_of_the_copy", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._library = self.source / module.LIBRARY
        module.build_native(self._directory, self._library)

    def check(self, case: Case, seconds: float = _SECONDS) -> None:
        """Remove the check and assert that the test then fails.

        Raises:
            AssertionError: the test passed or could not run, the copy without the check cannot be
                imported, or the file no longer has the text (it moved, and so must the case).
            subprocess.TimeoutExpired: the test did not end, so it proves nothing.
        """
        with self._without(case) as file:
            result = self._rows.run(
                [*_OPTIONS, case.test], module=self._module(file), file=file, seconds=seconds
            )
        assert result.is_noticed, f"not noticed, {result.reason}:\n{result.said[-2000:]}"

    def close(self) -> None:
        """End the process that runs the rows."""
        self._rows.close()

    def run(self, argv: list[str], seconds: float) -> tuple[int, str]:
        """Run a program that imports the copy; return its exit code and output."""
        with subprocess.Popen(
            argv, cwd=self._root, env=self._env, start_new_session=True,
            text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, said

    @property
    def _env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return env | {
            "PYTHONPATH": os.pathsep.join(
                [str(self.source), *(str(self._directory / n) for n in ("testkit", "tools"))]
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _module(self, file: Path) -> str:
        """Return the module name of the file, or "" if it is not in the package."""
        tools = self._directory / "tools"
        place = tools if file.is_relative_to(tools) else self.source
        if file.suffix != ".py" or not file.is_relative_to(place):
            return ""
        parts = file.relative_to(place).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @contextmanager
    def _without(self, case: Case) -> Iterator[Path]:
        is_native = case.file.startswith("native/")
        file = (
            self._directory / case.file
            if is_native or case.file.startswith("tools/")
            else (self.source / "hpcc" / case.file)
        )
        text = file.read_text()
        assert text.count(case.check) == 1, f"{case.file} has the check no more, or twice"
        library = self._library.read_bytes() if is_native else b""
        file.write_text(text.replace(case.check, case.without))
        try:
            if is_native:
                self.build_library()
            yield file
        finally:
            file.write_text(text)
            if is_native:
                self._put_back(library)

    def _put_back(self, library: bytes) -> None:
        """Replace the file instead of writing into it: a leftover process may have it mapped."""
        new = self._library.with_suffix(".new")
        new.write_bytes(library)
        new.chmod(0o755)
        new.replace(self._library)


_OPTIONS: Final = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
