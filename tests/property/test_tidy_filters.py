"""Filters of clang-tidy: one that may travel chooses the same files in a guest as here."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcc.compilers.tidy.filters import is_blind_to_place, place_in_config

PIECES = ["src", "rc/", "c/", "/", "inc", ".*", ".", r"\.", "(", "|", ")", "^", "$", "a", "h", "+", "*", "?", "[ab]"]  # fmt: skip
PATTERNS = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
NAMES = st.lists(st.sampled_from(["src", "inc", "a", "c", "rc", ".h", "h"]), max_size=4)
ROOTS = st.sampled_from(["/a", "/src", "/home/src/inc", "/c"])


@given(PATTERNS, ROOTS, NAMES)
@example("src/.*", "/a", ["inc", "h"])
@example("(a|src)/.*", "/a", ["inc", "h"])
@example("/", "/a", [])
@example(".rc/", "/a", ["inc"])
def test_a_filter_that_travels_matches_alike(pattern: str, root: str, parts: list[str]) -> None:
    if not is_blind_to_place(pattern.encode(), root.encode()):
        return
    found = re.compile(pattern)  # a choice of literal texts means the same to LLVM
    for name in (f"{root}/{'/'.join(parts)}", root):
        assert bool(found.search(name)) == bool(found.search("/src" + name)), (pattern, name)


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        ("", "/p"), (".*", "/p"), ("include/.*", "/p"), (".*/include/", "/p"), ("(inc|lib)/.*", "/p"),
        ("inc|lib", "/p"), (r"\.h$", "/p"), ("my-project/src/.*", "/p"), ("src/.*", "/home/src/p"),
        ("/home/me/p/.*", "/home/me/p"), (r"inc/.*\.*", "/p"),
    ],
)  # fmt: skip
def test_ordinary_filters(pattern: str, root: str) -> None:
    travels = pattern != r"inc/.*\.*"  # a star that does not end the filter
    assert is_blind_to_place(pattern.encode(), root.encode()) == travels


@pytest.mark.parametrize(
    "text",
    [
        "Checks: '*'\n",
        "HeaderFilterRegex: '.*'\n",
        'HeaderFilterRegex: "inc/"  # why\n',
        "HeaderFilterRegex: inc/.*\nChecks: x\n",
        "HeaderFilterRegex: .*\n\n",
        "{HeaderFilterRegex: '(inc|lib)/.*', Checks: '*'}",
        "ExcludeHeaderFilterRegex: 'third_party/.*'\n",
        "CheckOptions:\n  - key: readability-identifier-naming.ClassCase\n    value: CamelCase\n",
        "CheckOptions: {modernize-use-override.IncludeStyle: llvm}\n",
        "SystemHeaders: false\n",
    ],
)
def test_settings_that_travel(text: str) -> None:
    assert place_in_config(text.encode(), b"/p") == ""


@pytest.mark.parametrize(
    "text",
    [
        "HeaderFilterRegex: 'src/.*'\n",
        "HeaderFilterRegex: src/.*\n",
        "HeaderFilterRegex: inc/\n  src/\n",  # one text on two lines
        "HeaderFilterRegex: 'inc/\n  src/'\n",
        "HeaderFilterRegex: 'it''s'\n",
        'HeaderFilterRegex: "\\x73rc/"\n',
        "HeaderFilterRegex: >\n  src/\n",
        "HeaderFilterRegex: *other\n",
        "HeaderFilterRegex: !!str src/\n",
        "? HeaderFilterRegex\n: src/\n",
        "HeaderFilterRegex:\n  'src/'\n",
        "HeaderFilterRegex: ''\nHeaderFilterRegex: 'src/'\n",
        "ExcludeHeaderFilterRegex: 'src/.*'\n",
        "CheckOptions: {misc-include-cleaner.IgnoreHeaders: 'src/.*'}\n",
        "CheckOptions:\n  - key: misc-header-include-cycle.IgnoredFilesList\n    value: x\n",
        "SystemHeaders: true\n",
    ],
)
def test_settings_that_stay(text: str) -> None:
    assert place_in_config(text.encode(), b"/p")
