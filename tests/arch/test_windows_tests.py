"""`make test-windows` runs every test of the Windows parts, and `make test` runs them too."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"windows|msvc|clang_cl|wine")
_CONTENT = re.compile(r"^from hpcc(?:\.|_testkit\.)windows\b", re.MULTILINE)


def listed() -> list[Path]:
    """Return the paths that `make test-windows` passes to pytest."""
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=dev", "test-windows"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "pytest" in line]
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("timeout ")
    return [ROOT / word for word in lines[0].split() if word.startswith("tests/")]


def is_of_windows(file: Path) -> bool:
    return bool(_NAME.search(str(file.relative_to(ROOT)))) or bool(
        _CONTENT.search(file.read_text())
    )


def test_no_test_of_the_windows_parts_is_missing() -> None:
    paths = listed()
    missing = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if file != Path(__file__) and is_of_windows(file)
        if not any(file == path or path in file.parents for path in paths)
    ]
    assert missing == []
    assert [path for path in paths if not path.exists()] == []


def test_make_test_runs_all_of_them() -> None:
    """`make test` selects tests only by the nightly's rule, so each test runs in one of the two."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["tests"]
    assert not {"-m", "-k", "--ignore", "--deselect"} & set(settings["addopts"])
    script = (ROOT / "test.sh").read_text()
    runs = re.findall(r"-m pytest (-.*)", script)
    assert len(runs) == 1
    assert not re.search(r" -[mk] |--ignore|--deselect|tests/", runs[0])
    assert "tools/bootstrap.sh tests" in script
    assert re.search(r"for part in .*\bwindows-python\b", (ROOT / "tools/bootstrap.sh").read_text())
