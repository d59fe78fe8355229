"""Names that only messages show."""

from __future__ import annotations

import pytest

from hpcc.cache.inputs.messages import _COLOURS, _NAMED, _names_in_directives, _variants


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b'#line 12 "gram.y"\n', (b"gram.y",)),
        (b'  # line 12 "a b.y" \n# 3 "scan.l" 1 3\n', (b"a b.y", b"scan.l")),
        (b'%: 7 "d.y"\n', (b"d.y",)),
        (b'# 1 "/home/me//"\n# 1 ""\n', ()),
        (b'#include "x.h"\nchar *s = "# 1 \\"no\\"";\n', ()),
        (b'# 1 "one.y"\n# 9 "one.y"\n', (b"one.y",)),
        (b"int x;\n", ()),
    ],
)
def test_directives_name_files(text: bytes, names: tuple[bytes, ...]) -> None:
    assert _names_in_directives(text) == names


def test_messages_name_files() -> None:
    text = (
        b"In file included from src/a.h:3,\n                 from main.c:1:\n"
        b"gram.y: In function 'f':\ngram.y:1:19: warning: unused\n"
        b"    1 | int x:3;\n<command-line>:1:2: note: x\ncc1: all warnings\n"
    )
    assert _NAMED.findall(text) == [b"src/a.h", b"gram.y"]


def test_colours_and_links_are_no_part_of_a_name() -> None:
    text = b"\x1b[01m\x1b[Kgram.y:3:17:\x1b[m\x1b[K w\n\x1b]8;;file://h/d/l.y\al.y:1\x1b]8;;\a: x\n"
    assert _NAMED.findall(_COLOURS.sub(b"", text)) == [b"gram.y", b"l.y"]


def test_a_locale_is_looked_for_with_and_without_its_parts() -> None:
    found = set(_variants(b"de_DE.UTF-8@euro"))
    assert {b"de_DE.UTF-8@euro", b"de_DE.utf8", b"de_DE", b"de", b"de@euro", b"de.utf8"} <= found
    assert not set(_variants(b"/absolute/name"))
    assert set(_variants(b"xx")) == {b"xx"}
