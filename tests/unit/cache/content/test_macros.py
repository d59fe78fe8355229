"""Words of a text with which a macro's name could be put together."""

from __future__ import annotations

import pytest

from hpcc.cache.content.macros import words_at_start


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        (b"lib lib_EX xlib_V libx", {3}),
        (b"int lib_V;", {5}),
        (b"lib\\\n_V", {5}),
        (b"lib\\ \t\r\n_V", {5}),
        (b"a /* lib */ b // lib_", set()),
        (b'"lib_"', {4}),
        (b"2lib_V $lib_V lib_V$", set()),
        ("\u00e9lib_V".encode(), {5}),
        (b"other", set()),
    ],
)
def test_only_whole_words_of_code_count(text: bytes, lengths: set[int]) -> None:
    assert words_at_start(text, b"lib_V") == lengths


def test_a_digit_may_come_from_anywhere() -> None:
    assert words_at_start(b"", b"12") == {1, 2}


def test_a_trigraph_may_join_lines() -> None:
    assert words_at_start(b"l??/\nib", b"lib") == {1, 2, 3}
