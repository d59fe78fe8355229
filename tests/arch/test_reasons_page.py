"""docs/reasons.md has each word that the cache counts, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.msvc.flags import MSVC_FLAGS
from hpcc.compilers.scan.scan import HAZARD_REASONS

_ROOT = Path(__file__).parents[2]
_WORD = r'"([a-z]+(?:-[a-z]+)*)"'
# Said by functions that return the word, or counted where there is neither class.
_BYPASSES = {
    "windows-host",
    "elevated-daemon",
    "assembler-flag",
    "cancelled",
    "flag-of-another-compiler",
    "internal-error",
    "link",
    "no-source",
    "other-mount-namespace",
    "pass-through",
    "preprocessor-flag",
    "several-modes",
    "unknown-flag",
}
_UNCACHEABLE = {"internal-error", "output-not-ours"}


def _said(name: str) -> set[str]:
    found: set[str] = set()
    for package in ("compilers", "cache", "dispatch", "daemon"):
        for path in (_ROOT / "src/hpcc" / package).rglob("*.py"):
            found |= set(re.findall(name + r"\(\s*" + _WORD, path.read_text()))
    return found


def _table(title: str) -> set[str]:
    text = (_ROOT / "docs/reasons.md").read_text()
    section = text.split(f"\n## {title}")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([a-z-]+)`", cell)}


def test_every_bypass_is_explained() -> None:
    said = (
        _said("Bypass")
        | {r.reason for r in (*GNU_FLAGS.rows, *MSVC_FLAGS.rows) if r.reason}
        | _BYPASSES
    )
    assert _table("Bypasses") == said


def test_every_refusal_to_keep_a_result_is_explained() -> None:
    said = _said("UncacheableError") | set(HAZARD_REASONS.values()) | _UNCACHEABLE
    assert _table("Not kept") == said
