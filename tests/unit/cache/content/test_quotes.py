"""Quoted lines of a compiler's messages are compared with the files as they are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.content.quotes import hold_quotes

_TEXT = b"int f(void) {\n\tint a; // one\n  return 0;\n}"
_GCC = (
    b"In file included from b.c:1:\n"
    b"a.h: In function \xe2\x80\x98f\xe2\x80\x99:\n"
    b"a.h:2:13: warning: unused variable [-Wunused-variable]\n"
    b"    2 |         int a; // one\n"
    b"      |             ^\n"
)


def _holds(messages: bytes, directory: Path, text: bytes = _TEXT) -> bool:
    (directory / "a.h").write_bytes(text)
    memo = FileMemo(time.time_ns)
    path = os.fsencode(directory / "a.h")
    digest = memo.digest(path)
    assert digest is not None
    return hold_quotes(messages, os.fsencode(directory), {path: digest}, memo)


@pytest.mark.parametrize(
    "messages",
    [
        b"",
        _GCC,
        _GCC.replace(b"a.h:2:13", b"a.h:2"),
        b"a.h:4:1: note: end\n    4 | }\n      | ^\n1 warning generated.\n",
        b"cc1: warning: no place\n",
        b"a.h:1:1: note: nothing is quoted\n",
        b"a.h:1:1: warning: x\n    1 | int f(void) {\n      | ^~~\n  +++ |+#include <x.h>\n",
        b"\x1b[01m\x1b[Ka.h:2:13:\x1b[m\x1b[K \x1b[01;35m\x1b[Kwarning: \x1b[m\x1b[Kx"
        b" [\x1b]8;;https://a/b#c\x1b\\-Wx\x1b]8;;\x07]\n"
        b"    2 |         int \x1b[01;35m\x1b[Ka\x1b[m\x1b[K; // one\n"
        b"      |             \x1b[01;35m\x1b[K^\x1b[m\x1b[K\n",
        b"\x1b[1ma.h:2:6: \x1b[0m\x1b[0;1;35mwarning: \x1b[0m\x1b[1mx [-Wx]\x1b[0m\n"
        b"    2 | \x1b[0;34m        int\x1b[0m a; \x1b[0;32m// one\x1b[0m\n"
        b"      | \x1b[0;1;32m            ^\n\x1b[0m1 warning generated.\n",
        b"    inlined from 'f' at a.h:1:2,\n    inlined from 'g' at a.h:1:2:\n",
    ],
)
def test_lines_that_are_there_hold(messages: bytes, tmp_path: Path) -> None:
    assert _holds(messages, tmp_path)


@pytest.mark.parametrize(
    "messages",
    [
        _GCC.replace(b"// one", b"// two"),
        _GCC.replace(b"    2 |", b"    3 |"),
        _GCC.replace(b"    2 |", b"    0 |"),
        _GCC.replace(b"    2 |", b"    5 |"),
        _GCC.replace(b"    2 |", b"999999999 |"),
        _GCC.replace(b"a.h:2:13", b"c.h:2:13"),
        b"    1 | int f(void) {\n",  # of an unknown file
        b"a.h:2:5: warning: x\n\tint a; // one\n\t    ^\n",  # without numbers
        b"\x1b[01ma.h:2:5:\x1b[m warning: x\n    2 | \x1b[31m        int a; // two\x1b[m\n",
        b"\x1b[01xa.h:2:5:\x1b[m warning: x\n    2 |         int a; // one\n",
        b"a.h:1:1: note: x\n" * 3_000,
    ],
)
def test_what_differs_or_is_in_another_form_does_not(messages: bytes, tmp_path: Path) -> None:
    assert not _holds(messages, tmp_path)


@pytest.mark.parametrize(
    "text", [b"", _TEXT.replace(b"one", b"two"), _TEXT.replace(b" //", b"  //")]
)
def test_another_file_does_not(text: bytes, tmp_path: Path) -> None:
    assert not _holds(_GCC, tmp_path, text)
