"""The recipes in CONTRIBUTING.md name files and make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# What the recipes create.
NEW = re.compile(r"NAME|/root\.py$|test_root_command\.py$")


def test_each_path_of_the_recipes_exists() -> None:
    named = set(re.findall(r"(?<![\w/])(?:src|tests|tools|docs|\.github)/[\w./-]*\w", TEXT))
    assert len(named) > 25
    assert sorted(p for p in named if not NEW.search(p) and not (ROOT / p).exists()) == []


def test_each_target_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert named - targets == set()
