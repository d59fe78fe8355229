"""The list of a linker: names as they are, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.links.depfile import MAX_LIST_BYTES, MAX_LISTED, listed_names, unescaped

NAMES = st.lists(
    st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & set(b"\0\n\\ $#")),
    min_size=1, max_size=20, unique=True,
)  # fmt: skip


def by_ld(names: list[bytes]) -> bytes:
    return b"app:" + b"".join(b" \\\n  " + name for name in names) + b"\n\na.o:\n"


def by_lld(names: list[bytes]) -> bytes:
    return b"app:" + b"".join(b" \\\n " + name for name in names) + b"\n\na.o:\n"


@given(NAMES)
def test_both_forms_give_the_names_in_order(names: list[bytes]) -> None:
    assert listed_names(by_ld(names)) == tuple(names)
    assert listed_names(by_lld(names)) == tuple(names)


def test_a_name_counts_once_and_may_hold_spaces() -> None:
    assert listed_names(by_ld([b"a b.o", b" c.o", b"a b.o"])) == (b"a b.o", b" c.o")
    assert listed_names(by_lld([b"/crt1.o", b"a\\ b.o"])) == (b"/crt1.o", b"a\\ b.o")
    assert unescaped(b"a\\ b$$c\\#") == b"a b$c#"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"app", b"app:\n", b"app: a.o\n", b"app: \\\n  a.o", b"app: \\\n  \n",
        b"app: \\\n  a\0.o\n", b"x" * (MAX_LIST_BYTES + 1),
        by_ld([b"%d" % number for number in range(MAX_LISTED + 1)]),
    ],
    ids=["empty", "word", "none", "one-line", "torn", "blank", "nul", "long", "many"],
)  # fmt: skip
def test_what_is_not_a_whole_list_is_refused(text: bytes) -> None:
    assert listed_names(text) is None
