"""Messages get the names of another place, or are left if that is not clear."""

from __future__ import annotations

import pytest

from hpcc.compilers.invocation.share_text import moved_text

MOVES = {b"/a/p": b"/b", b"/a/p/build": b"/b/out"}
TEXT = (
    b"In file included from /a/p/src/x.c:1:\n"
    b"/a/p/build/gen.h:3:5: warning: unused [-Wunused]\n"
    b"cc1: warning: /a/p: not found\n/usr/x.h:1:1: note: in '/a/p/x'\n../a/q.c:1: x\n"
)


def test_messages_get_new_names() -> None:
    assert moved_text(TEXT, MOVES) == (
        b"In file included from /b/src/x.c:1:\n"
        b"/b/out/gen.h:3:5: warning: unused [-Wunused]\n"
        b"cc1: warning: /b: not found\n/usr/x.h:1:1: note: in '/b/x'\n../a/q.c:1: x\n"
    )
    assert moved_text(b"", MOVES) == b""


@pytest.mark.parametrize(
    "text",
    [
        b"/a/p2/x.c:1: warning",
        b"/a/p-build/x.c:1: warning",
        b"/c/a/p/x.c:1: warning",
        b"file:///a/p/x.c",
        b"-I/a/p/inc",
        b"/a/p/a/p/x.c: warning",
    ],
)
def test_another_name_that_holds_the_old_one_is_not_understood(text: bytes) -> None:
    assert moved_text(text, MOVES) is None
