"""Windows paths: for any input, a path stays below its root and has one spelling."""

from __future__ import annotations

import ntpath

from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import (
    WindowsPathError,
    check_windows_relative,
    parse_windows_path,
    windows_key,
)

_ROOT = parse_windows_path("C:\\w")
_WORDS = st.sampled_from(
    [
        "a",
        "B.c",
        "..",
        ".",
        "",
        "nul",
        "w",
        "W",
        "C:",
        "c:",
        "?",
        "UNC",
        "\\",
        "/",
        "\\\\?\\",
        "x ",
        "y.",
        "\u00e9",
        "\u212a",
    ]
)
_TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(_WORDS, max_size=8).map("\\".join),
    st.lists(_WORDS, max_size=8).map("/".join),
    st.lists(_WORDS, max_size=8).map(lambda w: "C:\\w\\" + "\\".join(w)),
)


@given(_TEXTS)
def test_any_text_is_one_plain_path_below_the_root_or_refused(text: str) -> None:
    try:
        path = parse_windows_path(text, cwd=_ROOT)
        relative = path.relative_to(_ROOT)
    except WindowsPathError:
        return
    assert check_windows_relative(relative) == relative
    # Read again it is the same, by its full name, its relative one, and behind \\?\.
    assert parse_windows_path(str(path)) == path
    assert parse_windows_path("\\\\?\\" + str(path)) == path
    assert parse_windows_path(relative, cwd=_ROOT).relative_to(_ROOT) == relative
    assert windows_key(windows_key(relative)) == windows_key(relative)


@given(_TEXTS)
def test_what_is_accepted_is_what_windows_would_open(text: str) -> None:
    try:
        path = parse_windows_path(text, cwd=_ROOT)
    except WindowsPathError:
        return
    # The standard library's reading, which knows fewer refusals, as a second opinion.
    theirs = ntpath.normpath(ntpath.join("C:\\w", text.removeprefix("\\\\?\\")))
    assert str(path)[1:] == theirs[1:]
    assert str(path)[:1] == theirs[:1].upper()


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_folds_ascii_letters_and_nothing_else(one: str, other: str) -> None:
    folds = "".join(c.lower() if "A" <= c <= "Z" else c for c in one)
    assert windows_key(one) == folds
    assert len(windows_key(other)) == len(other)
