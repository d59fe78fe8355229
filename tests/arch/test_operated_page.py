"""docs/operated.md names tests and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/operated.md"


def test_each_test_and_file_that_the_page_names_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sources = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.M))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 30
    assert named <= defined, sorted(named - defined)
    files = set(re.findall(r"`((?:tests|tools|bench)/[\w./-]+)`", text))
    assert not [name for name in files if not (ROOT / name).is_file()]
