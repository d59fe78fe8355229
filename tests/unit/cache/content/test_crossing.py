"""Which macros of a command line may put together the name of a directory."""

from __future__ import annotations

import pytest

from hpcc.cache.content.crossing import may_be_part

_PLACES = (b"/home/alice/proj-1/build", b"/home/alice/proj-1")


@pytest.mark.parametrize(
    "macro",
    [
        b"USER=alice", b"P=ali", b"P=(x,ce)", b'P="proj-1"', b"P=-1", b"D=a/b", b"D=/", b"P=x##y",
        b"P=ome ZZ", b"P=.build home",
    ],
)  # fmt: skip
def test_a_piece_of_the_name_may(macro: bytes) -> None:
    assert may_be_part(macro, _PLACES)


@pytest.mark.parametrize(
    "macro",
    [b"NDEBUG", b"A=", b"A=1", b"A=0", b"A=64", b'V="2.0"', b"LUA_ANSI", b"HAVE_HOME", b"alice"],
)
def test_what_is_no_piece_of_it_may_not(macro: bytes) -> None:
    assert not may_be_part(macro, _PLACES)
