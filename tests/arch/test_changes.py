"""Every changelog fragment has a known type and a text."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHANGES = ROOT / "changes"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
TYPES = [kind["directory"] for kind in CONFIG["type"]]
FRAGMENTS = sorted(file for file in CHANGES.iterdir() if file.name != "README.md")


def test_the_types_are_the_headings_of_the_changelog() -> None:
    assert TYPES == ["added", "changed", "fixed", "security"]
    headings = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(headings) <= {kind["name"] for kind in CONFIG["type"]}
    assert headings


def test_each_fragment_has_a_name_and_a_type_that_towncrier_reads() -> None:
    # Towncrier leaves out a file whose type it does not know.
    wrong = [
        file.name
        for file in FRAGMENTS
        if not re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(TYPES)})\.md", file.name)
    ]
    assert wrong == [], "name it changes/+NAME.TYPE.md (changes/README.md)"


def test_each_fragment_is_prose_of_a_few_lines() -> None:
    for file in FRAGMENTS:
        lines = file.read_text().splitlines()
        assert "".join(lines).strip(), f"{file.name} is empty"
        assert len(lines) <= 6, f"{file.name} is longer than an entry"
        assert not lines[0].startswith(("#", "-", "*", " ")), f"{file.name} has its own markup"


def test_the_changelog_has_the_line_where_towncrier_writes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.count("<!-- towncrier release notes start -->\n") == 1
