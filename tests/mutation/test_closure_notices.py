"""Each check of what leaves this machine is needed: without it, the test named after it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ATTACK = (
    "tests/integration/cache/test_closure_completion.py"
    "::test_a_hostile_guest_cannot_make_the_client_send"
)
COMPLETION, WANTED = "daemon/_completion.py", "compilers/_wanted.py"
TESTS_FAILED = 1


class Case(NamedTuple):
    """A check in `file`, the text it is replaced by, and the test that must notice."""

    file: str
    check: str
    without: str
    test: str


CASES = {
    "hidden": Case(
        WANTED,
        'if any(part.startswith(b".") and part not in {b".", b".."} for part in (*parents, base)):',
        "if False:",
        ATTACK + "[hidden-header-gcc]",
    ),
    "suffix": Case(
        WANTED,
        "suffix.lower() in _SUFFIXES",
        "suffix is not None",
        ATTACK + "[key-file-gcc]",
    ),
    "marker": Case(
        COMPLETION,
        "or (marker is not None and marker.excludes(inside))",
        "",
        ATTACK + "[excluded-by-the-marker-gcc]",
    ),
    "size": Case(
        COMPLETION,
        "or status.st_size > MAX_ADDED_BYTES",
        "",
        ATTACK + "[huge-gcc]",
    ),
    "links": Case(
        COMPLETION,
        '    for inside in (path[len(root.rstrip(b"/")) + 1 :], real[len(real_root.rstrip(b"/")) + 1 :]):',
        '    for inside in (path[len(root.rstrip(b"/")) + 1 :],):',
        ATTACK + "[hidden-by-a-link-gcc]",
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("mutant") / "src"
    shutil.copytree(ROOT / "src", tree, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, source: Path) -> None:
    case = CASES[name]
    file = source / "hpcc" / case.file
    text = file.read_text()
    assert text.count(case.check) == 1, f"{case.file} has the check no more, or twice"
    file.write_text(text.replace(case.check, case.without))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", case.test],
            cwd=ROOT, timeout=60, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    finally:
        file.write_text(text)
    assert done.returncode == TESTS_FAILED, f"not noticed:\n{done.stdout[-2000:]}"
    assert "failed" in done.stdout
