"""Every exemption from a lint rule names an existing file and has a reason."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "pyproject.toml").read_text()
EXEMPT: dict[str, list[str]] = tomllib.loads(TEXT)["tool"]["ruff"]["lint"]["per-file-ignores"]
PRODUCT = sorted(pattern for pattern in EXEMPT if pattern.startswith("src/"))


def files_of(pattern: str) -> list[Path]:
    """Expand braces, as ruff does."""
    match = re.fullmatch(r"(.*)\{(.+)\}(.*)", pattern)
    if match is None:
        return [ROOT / pattern]
    return [ROOT / f"{match[1]}{name}{match[3]}" for name in match[2].split(",")]


def reason_of(pattern: str) -> str:
    """Return the comment at the line's end, or the one above its paragraph."""
    lines = TEXT.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f'"{pattern}"'))
    behind = lines[at].partition("#")[2].strip()
    while lines[at].startswith('"src/'):
        at -= 1
    return behind or lines[at].partition("#")[2].strip()


def test_the_product_has_exemptions() -> None:
    assert len(PRODUCT) > 10


@pytest.mark.parametrize("pattern", PRODUCT)
def test_an_exemption_of_the_product_names_files(pattern: str) -> None:
    if "*" in pattern:
        # A whole package only with its reason behind the same line.
        line = next(line for line in TEXT.splitlines() if line.startswith(f'"{pattern}"'))
        assert re.search(r"\] # \w", line)
        return
    assert [str(file) for file in files_of(pattern) if not file.is_file()] == []


@pytest.mark.parametrize("pattern", PRODUCT)
def test_an_exemption_of_the_product_has_a_reason(pattern: str) -> None:
    assert len(reason_of(pattern).split()) >= 5
