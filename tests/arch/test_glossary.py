"""The glossary is sorted, lists each term once, and links each to code that exists."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/glossary.md"
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", PAGE.read_text(), re.MULTILINE)


def test_terms_are_sorted_and_defined_once() -> None:
    terms = [term.strip("`").lower() for term, _ in ENTRIES]
    assert terms == sorted(set(terms))
    assert len(terms) > 60


def test_each_definition_is_short_and_links_to_where_the_term_lives() -> None:
    for term, text in ENTRIES:
        links = re.findall(r"\]\((\.\./src/[^)]+)\)", text)
        assert links, term
        assert all((PAGE.parent / link).is_file() for link in links), term
        prose = re.sub(r"\(\[`.*$", "", text)
        assert len(prose.split()) <= 60, term
