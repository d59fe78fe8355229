"""Depfiles and messages without their root, and the search for paths in an object."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.manifest import Absence, InputSet, make_part
from hpcc.cache.base.twins import Twins
from hpcc.cache.key.relocate import Checkout
from hpcc.cache.results.share_check import why_object_is_private
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.depfile import escape_name, parse_depfile, unescape_name
from hpcc.compilers.invocation.share import (
    canonical_arguments,
    is_plain_root,
    prefix_maps,
    under_root,
    why_private,
)
from hpcc.compilers.invocation.share_text import (
    mark_depfile,
    mark_includes,
    mark_text,
    render_depfile_for,
    render_text,
)
from hpcc.compilers.scan.twins import TwinRule
from hpcc.compilers.spec.table import Bypass

_ROOT = b"/home/me/project"
_ROOTS = st.from_regex(rb"(/[a-z0-9._ +-]{1,12}[a-z]){1,6}", fullmatch=True)
_INSIDE = st.from_regex(rb"(/[a-z0-9._$# -]{1,12}[a-z]){1,5}", fullmatch=True)


def _gcc_depfile(target: bytes, names: list[bytes]) -> bytes:
    """Return GCC's depfile layout, after libcpp's mkdeps.cc, for names that need no quoting."""
    out, column = target + b":", len(target) + 1
    for name in names:
        if column and column + len(name) > 72:
            out, column = out + b" \\\n", 0
        if column or out.endswith(b"\n"):
            out, column = out + b" ", column + 1
        out, column = out + name, column + len(name)
    return out + b"\n"


@given(_ROOTS, _ROOTS, st.lists(_INSIDE, min_size=1, max_size=12))
def test_a_depfile_of_one_clone_becomes_that_of_another(
    one: bytes, other: bytes, names: list[bytes]
) -> None:
    plain = [n.replace(b" ", b"_").replace(b"$", b"_").replace(b"#", b"_") for n in names]
    one, other = one.replace(b" ", b"_"), other.replace(b" ", b"_")
    if any(one in n or other in n for n in plain):
        return

    def of(root: bytes) -> bytes:
        return _gcc_depfile(root + b"/x.o", [root + n for n in plain] + [b"/usr/include/stdio.h"])

    marked = mark_depfile(of(one), one, is_clang=False)
    if one in b"/usr/include/stdio.h":
        return
    assert marked is not None
    assert one not in marked
    assert render_depfile_for(marked, other, is_clang=False) == of(other)
    assert render_depfile_for(marked, one, is_clang=False) == of(one)


def test_lines_break_where_the_compiler_breaks_them() -> None:
    for size in range(1, 40):
        names = [b"/" + b"a" * size, b"/b", b"/" + b"c" * (size // 2), b"/d"]
        one, other = b"/short", b"/another/and/longer"
        of = [_gcc_depfile(root + b"/x.o", [root + n for n in names]) for root in (one, other)]
        marked = mark_depfile(of[0], one, is_clang=False)
        assert marked is not None, size
        assert render_depfile_for(marked, other, is_clang=False) == of[1]


_WORDS = [_ROOT, b"/x.c", b" ", b" \\\n", b" \\\n ", b":", b"\n", b"\\", b"$$", b"a", b"\0", b"\t"]


@given(st.lists(st.sampled_from(_WORDS), max_size=40).map(b"".join), st.booleans())
def test_any_depfile_comes_back_as_it_was_or_is_refused(data: bytes, is_clang: bool) -> None:
    marked = mark_depfile(data, _ROOT, is_clang=is_clang)
    if marked is not None:
        assert _ROOT not in marked
        assert render_depfile_for(marked, _ROOT, is_clang=is_clang) == data


@pytest.mark.parametrize(
    "data",
    [
        b"x.o: build/home/me/project/x.c\n",
        b"/home/me/project/x.c\0\n",
        b"x.o: /home/me/project-2/x.h\n",
        b"x.o: a/home/me/project\n",
        b"x.o:  /home/me/project/x.c\n",
        b"x.o: /home/me/project/x.c",
        b"x.o: \0/x.c\n",
        b"x.o: /home/me/project/home/me/project/x.c\n",
    ],
)
def test_a_depfile_that_cannot_be_made_again_is_refused(data: bytes) -> None:
    assert mark_depfile(data, _ROOT, is_clang=False) is None
    assert mark_depfile(data, _ROOT, is_clang=True) is None


@pytest.mark.parametrize(
    "text",
    [
        b"/home/me/project/x.c:3:5: warning: unused\n",
        b"In file included from /home/me/project/a.h:3,\n         from /home/me/project/x.c:1:\n",
        b"\x1b[01m\x1b[K/home/me/project/x.c:1:2:\x1b[m\x1b[K note\n",
        b"cannot find '/home/me/project': no\n",
        b"\xe2\x80\x98/home/me/project/x\xe2\x80\x99\n",
        b"nothing\n",
        b"",
    ],
)
def test_a_message_names_the_clone_it_is_shown_in(text: bytes) -> None:
    marked = mark_text(text, _ROOT)
    assert marked is not None
    assert _ROOT not in marked
    assert render_text(marked, b"/other") == text.replace(_ROOT, b"/other")


@pytest.mark.parametrize(
    "text",
    [
        b"/home/me/project-2/x.c:1: note\n",
        b"/home/me/projects\n",
        b"x/home/me/project/x.c\n",
        b"-I/home/me/project/x\n",
        b"/home/me/project/home/me/project/x\n",
        b"/home/me/project/home/me/project",
        b"/home/me/project.c\n",
        b"\0/x.c:1: note\n",
    ],
)
def test_a_message_with_the_root_in_a_word_is_refused(text: bytes) -> None:
    assert mark_text(text, _ROOT) is None


@given(_ROOTS, st.lists(st.sampled_from([b"@/x.c:1:", b" from ", b"\n", b"'", b"@", b"a/b"])))
def test_any_message_comes_back_as_it_was_or_is_refused(root: bytes, words: list[bytes]) -> None:
    text = b"".join(words).replace(b"@", root)
    marked = mark_text(text, root)
    if marked is not None:
        assert render_text(marked, root) == text


@pytest.mark.parametrize(
    ("root", "is_plain"),
    [
        (b"/home/me/project", True),
        (b"/home/me/my project", True),
        ("/home/josé/x".encode(), True),
        (b"/", False),
        (b"/a=b", False),
        (b"/a:b", False),
        (b"/a%s", False),
        (b"/a\nb", False),
        (b"/a\\b", False),
        (b"/\xff", False),
        (b"/a ", False),
        (b"/a//b", False),
        (b"relative", False),
    ],
)
def test_which_roots_are_plain(root: bytes, is_plain: bool) -> None:
    assert is_plain_root(root) is is_plain


def test_a_map_does_not_reach_a_neighbour() -> None:
    maps = prefix_maps(_ROOT, _ROOT + b"/build")
    assert maps
    assert all(m.partition(b"=")[2].startswith(_ROOT + b"/=") for m in maps)
    assert len(prefix_maps(_ROOT, _ROOT)) == len(maps) + 1
    assert under_root(b"/home/me/project-2/x", _ROOT) is None
    assert under_root(_ROOT, _ROOT) == b""


def _arguments(*argv: bytes) -> tuple[bytes, ...] | None:
    invocation = read_invocation(b"/usr/bin/gcc", argv)
    assert not isinstance(invocation, Bypass)
    return canonical_arguments(invocation, _ROOT)


def test_paths_are_spelled_from_the_root_and_text_is_not_touched() -> None:
    argv = (b"-I" + _ROOT + b"/inc", b"-iquote", _ROOT, b"-MD", b"-MF", _ROOT + b"/b/x.d", b"-MT")
    argv += (_ROOT + b"/x.o", b"-include", b"../a.h", b"-c", _ROOT + b"/x.c", b"-DX=y", b"-oz.o")
    assert _arguments(*argv) == (
        *(b"-I\0/inc", b"-iquote", b"\0", b"-MD", b"-MF", b"\0/b/x.d", b"-MT", b"\0/x.o"),
        *(b"-include", b"../a.h", b"-c", b"\0/x.c", b"-DX=y", b"-oz.o"),
    )


@pytest.mark.parametrize(
    "extra",
    [
        b"-DROOT=" + _ROOT,
        b"-I" + _ROOT + b"-2/inc",
        b"-I/x" + _ROOT,
        b"-I" + _ROOT + b"/.." + _ROOT,
        b"-fplugin-arg-x=" + _ROOT,
        b"-Wno-" + _ROOT,
    ],
)
def test_the_root_anywhere_else_keeps_a_command_private(extra: bytes) -> None:
    invocation = read_invocation(b"/usr/bin/gcc", (b"-c", b"x.c", extra))
    if not isinstance(invocation, Bypass):
        assert why_private(invocation, _ROOT, is_clang=False, major=12)


@pytest.mark.parametrize("target", [b"a b", b"a\tb", b"a\nb"])
def test_a_target_that_make_would_read_as_two_keeps_a_command_private(target: bytes) -> None:
    invocation = read_invocation(b"/usr/bin/gcc", (b"-c", b"x.c", b"-MD", b"-MT", target))
    assert not isinstance(invocation, Bypass)
    assert why_private(invocation, _ROOT, is_clang=False, major=12) == "flags"


@pytest.mark.parametrize(
    ("is_clang", "major"), [(False, 11), (False, 15), (True, 13), (True, 18), (True, 20)]
)
def test_an_unproved_compiler_shares_nothing(is_clang: bool, major: int) -> None:
    invocation = read_invocation(b"/usr/bin/gcc", (b"-c", b"x.c"))
    assert not isinstance(invocation, Bypass)
    assert why_private(invocation, _ROOT, is_clang=is_clang, major=major) == "unproved-compiler"


_INNER = (b"-emit-pch", b"-include", _ROOT + b"/b/x.h", b"-fno-pch-timestamp")


def _inner(*words: bytes) -> tuple[bytes, ...]:
    return tuple(piece for word in words for piece in (b"-Xclang", word))


def test_headers_behind_xclang_are_spelled_from_the_root() -> None:
    argv = _inner(b"-include-pch", _ROOT + b"/b/x.pch", *_INNER[1:])
    marked = _inner(b"-include-pch", b"\0/b/x.pch", b"-include", b"\0/b/x.h", _INNER[3])
    assert _arguments(*argv, b"-c", b"x.c") == (*marked, b"-c", b"x.c")
    invocation = read_invocation(b"/usr/bin/clang", (*argv, b"-c", b"x.c"))
    assert not isinstance(invocation, Bypass)
    assert why_private(invocation, _ROOT, is_clang=True, major=19) == ""


@pytest.mark.parametrize(
    "words", [(b"-Xclang", b"-disable-O0-optnone"), _inner(b"-include", b"/x" + _ROOT)]
)
def test_other_words_behind_xclang_keep_a_command_private(words: tuple[bytes, ...]) -> None:
    invocation = read_invocation(b"/usr/bin/clang", (*words, b"-c", b"x.c"))
    if not isinstance(invocation, Bypass):
        assert why_private(invocation, _ROOT, is_clang=True, major=19)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        (b'#include "/home/me/project/a.h"\n', b'#include "\0/a.h"\n'),
        (b'  # include "/home/me/project/a.h" \r\nint x;', b'  # include "\0/a.h" \r\nint x;'),
        (b"int x;\n", b"int x;\n"),
        (b'#include "/home/me/project-2/a.h"\n', None),
        (b'#include "/home/me/project/../project/a.h"\n', None),
        (b'#include "/home/me/project/a.h" // /home/me/project\n', None),
        (b"#include </home/me/project/a.h>\n", None),
        (b'const char *s = "/home/me/project";\n', None),
        (b'auto s = R"(\n#include "/home/me/project/a.h"\n)";\n', None),
        (b'#define X \\\n#include "/home/me/project/a.h"\n', None),
        (b'#define X \\\f\n#include "/home/me/project/a.h"\n', None),
        (b'#define X \\ \v\n#include "/home/me/project/a.h"\n', None),
        (b'#line 1 "x.h"\n#include "/home/me/project/a.h"\n', None),
        (b'%: /*\n*/ 1 "x.h"\n#include "/home/me/project/a.h"\n', None),
        (b'??=line 1 "x.h"\n#include "/home/me/project/a.h"\n', None),
        (b'#define X ??/\n#include "/home/me/project/a.h"\n', None),
        (b'#include "/home/me/project/a.h"\n\0', None),
    ],
)
def test_the_root_in_include_lines(text: bytes, marked: bytes | None) -> None:
    found = mark_includes(text, _ROOT)
    assert (None if found is None else found[0]) == marked


def _elf(*, flags: int = 0, sections: int = 1, tail: bytes = b"") -> bytes:
    head = struct.pack("<4sBB10x", b"\x7fELF", 2, 1)
    head += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, sections, 0)
    return head + struct.pack("<IIQ48x", 0, 1, flags) + tail


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_elf(), ""),
        (_elf(tail=b"x/home/me/project/y"), "embeds-path"),
        (_elf(tail=b"/home/me/projec"), ""),
        (_elf(flags=0x800), "compressed-debug"),
        (_elf(tail=b"\0.zdebug_info"), "compressed-debug"),
        (_elf(sections=0), "object-format"),
        (_elf(sections=2), "object-format"),
        (_elf()[:30], "object-format"),
        (b"\x7fELF\x02\x02" + _elf()[6:], "object-format"),
        (b"!<arch>\n", "object-format"),
        (b"BC\xc0\xde", "object-format"),
        (b"", "object-format"),
    ],
)
def test_an_object_is_searched_or_refused(data: bytes, reason: str) -> None:
    assert why_object_is_private(data, (_ROOT,)) == reason


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at_without_an_error(data: bytes) -> None:
    why_object_is_private(b"\x7fELF\x02\x01" + data, (_ROOT,))


def test_every_name_in_a_set_of_inputs_is_moved() -> None:
    """A field that is added to these must be moved, too; `body` and `part` are removed."""
    names = ("files", "present", "absences", "result_key", "body", "part", "twins")
    assert InputSet._fields == names
    assert set(Absence.__slots__) == {"directories", "directory", "files", "signature"}
    absence = Absence(b"\0/inc", frozenset([b"a.h"]), frozenset([b"b"]))
    inputs = InputSet(
        ((b"\0/x.c", b"1"), (b"/usr/x.h", b"2")), (b"\0",), (absence,), b"key", b"body",
        make_part(((b"/usr/x.h", b"2"),), (absence,)),
        (Twins(TwinRule.INODE, ((b"\0/z.h",), (b"/usr/x.h",))),),
    )  # fmt: skip
    moved = Checkout(_ROOT, GNU).spelled_set(inputs)
    assert moved.files == ((_ROOT + b"/x.c", b"1"), (b"/usr/x.h", b"2"))
    assert moved.present == (_ROOT,)
    assert [(a.directory, a.files, a.directories) for a in moved.absences] == [
        (_ROOT + b"/inc", frozenset([b"a.h"]), frozenset([b"b"]))
    ]
    assert moved.twins == (Twins(TwinRule.INODE, ((_ROOT + b"/z.h",), (b"/usr/x.h",))),)
    assert (moved.result_key, moved.body, moved.part) == (b"key", b"", None)
    marked = Checkout(_ROOT, GNU).marked_absences(moved.absences)
    assert marked[0].directory == b"\0/inc"


def test_a_depfile_of_one_long_word_is_read_in_one_pass() -> None:
    """The file may come from a worker. Time that grows with the square would be half an hour."""
    word = b"\\ \\a" * (1 << 18)
    (rule,) = parse_depfile(b"x: " + word + b"\n")
    assert rule.prerequisites == (b" \\a" * (1 << 18),)
    assert unescape_name(escape_name(rule.prerequisites[0])) == rule.prerequisites[0]
