"""Comparing two compilers: their differences, the report, the deciding rule, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hpcc.compilers.probe import MAX_PREPROCESSED_BYTES, probe_source, read_probe
from hpcc.core import (
    CallerError,
    ClientPolicy,
    ImageRef,
    Level,
    Toolchain,
    compare,
    encode_toolchains,
    parse_toolchains,
    sentence,
)

IMAGE = ImageRef.parse("acme/gcc@sha256:" + "ab" * 32)
GCC = Toolchain(
    names=("gcc", "cc", "gcc-14"), family="gcc", version="14.2.0", build="Debian 14.2.0-19",
    target="x86_64-linux-gnu", probe=1,
    headers=(("/usr/include", "a" * 64), ("/usr/lib/gcc/x86_64-linux-gnu/14/include", "b" * 64)),
)  # fmt: skip
ABOUT = b"""Using built-in specs.
Target: x86_64-linux-gnu
gcc version 14.2.0 (Debian 14.2.0-19)
#include "..." search starts here:
#include <...> search starts here:
 /usr/lib/gcc/x86_64-linux-gnu/14/include
 /usr/include
End of search list.
"""
TEXT = b"""# 0 "probe.c"
# 0 "<built-in>"
#define __STDC__ 1
# 1 "probe.c"
# 1 "/usr/include/stdio.h" 1 3 4
int puts(const char *);
# 1 "/usr/lib/gcc/x86_64-linux-gnu/14/include/stddef.h" 1 3 4
typedef long unsigned int size_t;
# 2 "probe.c" 2
int mine;
"""


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({}, Level.EXACT),
        ({"names": ("gcc",)}, Level.EXACT),
        ({"headers": (("/opt/include", "a" * 64), ("/x", "b" * 64))}, Level.EXACT),
        ({"headers": (("/usr/include", "c" * 64), ("/x", "b" * 64))}, Level.HEADERS),
        ({"headers": (("/usr/include", "a" * 64),)}, Level.HEADERS),
        ({"headers": (("/usr/include", "a" * 64), ("/x", "a" * 64))}, Level.HEADERS),
        ({"headers": (), "probe": 0}, Level.EXACT),
        ({"headers": (("/usr/include", "c" * 64),), "probe": 2}, Level.EXACT),
        ({"build": "Debian 14.2.0-20"}, Level.MINOR),
        ({"version": "14.3.0"}, Level.MINOR),
        ({"version": "13.2.0"}, Level.OTHER),
        ({"family": "clang"}, Level.OTHER),
        ({"target": "aarch64-linux-gnu"}, Level.OTHER),
        ({"names": ("g++",)}, Level.OTHER),
    ],
)
def test_family_version_target_and_headers_decide(change: dict[str, object], level: Level) -> None:
    there = replace(GCC, **change)  # type: ignore[arg-type]  # by name
    assert compare("gcc", GCC, [there]).level is level


def test_who_is_not_known_differs_from_nobody() -> None:
    assert compare("gcc", None, [GCC]).level is Level.UNKNOWN
    assert compare("gcc", GCC, None).level is Level.UNKNOWN
    assert not Level.UNKNOWN.differs
    assert not Level.EXACT.differs
    assert all(level.differs for level in (Level.HEADERS, Level.MINOR, Level.OTHER))


def test_an_image_without_a_compiler_is_another_one() -> None:
    finding = compare("gcc", GCC, [])
    assert finding.level is Level.OTHER
    assert "has no compiler called gcc (it has no compiler that answers)" in sentence(
        finding, IMAGE
    )


def test_of_cl_the_first_two_numbers_make_another_compiler() -> None:
    cl = Toolchain(names=("cl",), family="msvc", version="19.44.35211.0", target="x64")
    assert compare("cl", cl, [replace(cl, version="19.44.35300.0")]).level is Level.MINOR
    assert compare("cl", cl, [replace(cl, version="19.43.35211.0")]).level is Level.OTHER


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"version": "12.4.0", "build": "Debian 12.4.0-5"},
            "gcc here is gcc 14.2.0 (Debian 14.2.0-19) for x86_64-linux-gnu, gcc of image"
            " acme/gcc@sha256:abababababab is gcc 12.4.0 (Debian 12.4.0-5) for x86_64-linux-gnu:"
            " install gcc-12 12.4.0 (Debian 12.4.0-5) here, or use an image with gcc 14.2.0, or",
        ),
        ({"target": "aarch64-linux-gnu"}, "call gcc 14 for aarch64-linux-gnu here, or"),
        ({"names": ("clang",), "family": "clang"}, "has no compiler called gcc (it has clang:"),
        ({"headers": (("/usr/include", "c" * 64),)}, "but headers differ: /usr/include,"),
    ],
)
def test_one_sentence_names_both_sides_and_what_to_do(change: dict[str, object], said: str) -> None:
    there = replace(GCC, **change)  # type: ignore[arg-type]  # by name
    text = sentence(compare("gcc", GCC, [there]), IMAGE)
    assert said in text
    assert 'set parity = "warn"' in text
    assert "\n" not in text


def test_the_stricter_of_tenant_and_user_counts() -> None:
    tenant = ClientPolicy(fallback="warn", parity="refuse")
    assert tenant.stricter(fallback="quiet", parity="ignore") == ("warn", "refuse")
    assert tenant.stricter(fallback="never", parity="warn") == ("never", "refuse")
    assert ClientPolicy(fallback="never").stricter(fallback="quiet", parity="warn") == (
        "never",
        "warn",
    )
    assert ClientPolicy().stricter(fallback="quiet", parity="ignore") == ("quiet", "ignore")


def test_a_probes_answer_is_read() -> None:
    found = read_probe(("gcc",), ABOUT, TEXT)
    assert (found.family, found.version, found.build, found.target) == (
        "gcc", "14.2.0", "Debian 14.2.0-19", "x86_64-linux-gnu",
    )  # fmt: skip
    assert [name for name, _ in found.headers] == [
        "(predefined macros)", "/usr/include", "/usr/lib/gcc/x86_64-linux-gnu/14/include",
    ]  # fmt: skip


def test_the_probe_itself_and_the_place_of_the_headers_do_not_count() -> None:
    digests = [d for _, d in read_probe(("gcc",), ABOUT, TEXT).headers]
    assert digests == [
        d for _, d in read_probe(("gcc",), ABOUT, TEXT.replace(b"int mine;", b"int other;")).headers
    ]
    moved = (part.replace(b"/usr/include", b"/opt/x/inc") for part in (ABOUT, TEXT))
    assert sorted(digests) == sorted(d for _, d in read_probe(("gcc",), *moved).headers)
    changed = read_probe(("gcc",), ABOUT, TEXT.replace(b"puts", b"putz"))
    assert digests != [d for _, d in changed.headers]


def test_clang_is_told_from_gcc_and_a_failed_probe_has_no_headers() -> None:
    about = b"Ubuntu clang version 18.1.3 (1ubuntu1)\nTarget: x86_64-pc-linux-gnu\n"
    found = read_probe(("clang",), about, b"")
    assert (found.family, found.version, found.build) == ("clang", "18.1.3", "Ubuntu (1ubuntu1)")
    assert found.headers == ()


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"Target: x86_64-linux-gnu\n",
        b"gcc version 14.2.0 (x)\n",
        b"gcc version 14.2.0\nTarget: \x1b[31mred\n",
        b"gcc version 14\nTarget: " + b"x" * 65 + b"\n",
        b"gcc version " + b"1" * 7 + b".0\nTarget: x\n",
        b"gcc version 14.2.0\nTarget: x\n" + b"y" * (1 << 20),
    ],
)
def test_an_answer_of_no_compiler_is_refused(about: bytes) -> None:
    with pytest.raises(CallerError):
        read_probe(("gcc",), about, TEXT)


def test_escapes_in_an_answer_do_not_reach_a_terminal() -> None:
    about = ABOUT.replace(b"Debian", b"\x1b]0;owned\x07\xc3\xa9")
    assert read_probe(("gcc",), about, TEXT).build.isprintable()
    odd = b"/usr/\x1b[2Jinclude"
    found = read_probe(("gcc",), *(t.replace(b"/usr/include", odd) for t in (ABOUT, TEXT)))
    assert all(name.isprintable() for name, _ in found.headers)


def test_an_answer_with_files_or_bytes_without_end_is_refused() -> None:
    flood = b"".join(b'# 1 "/usr/include/%d.h" 1\nint x;\n' % n for n in range(5000))
    with pytest.raises(CallerError):
        read_probe(("gcc",), ABOUT, flood)
    with pytest.raises(CallerError):
        read_probe(("gcc",), ABOUT, b"x" * (MAX_PREPROCESSED_BYTES + 1))


def test_a_search_path_without_end_has_no_more_digests_than_are_kept() -> None:
    lines = b"".join(b" /d%d\n" % n for n in range(1000))
    text = b"".join(b'# 1 "/d%d/x.h" 1\nint x;\n' % n for n in range(1000))
    assert len(read_probe(("gcc",), ABOUT.replace(b" /usr/include\n", lines), text).headers) <= 16


def test_the_probe_asks_for_headers_by_name_so_that_an_absent_one_costs_nothing() -> None:
    (c, text), (cxx, _) = probe_source("gcc-14"), probe_source("x86_64-linux-gnu-g++")
    assert (c, cxx) == ("probe.c", "probe.cc")
    assert text.count(b"#include") == text.count(b"__has_include")


def test_descriptions_cross_a_file_unchanged() -> None:
    both = (GCC, replace(GCC, names=("clang",), family="clang", headers=()))
    assert parse_toolchains(encode_toolchains(both)) == both


@pytest.mark.parametrize(
    "change",
    [
        {"names": []},
        {"names": ["gcc"] * 33},
        {"names": ["../gcc"]},
        {"names": ["gcc\n"]},
        {"names": [1]},
        {"names": "gcc"},
        {"family": "tcc"},
        {"version": "14.2\x1b[0m"},
        {"version": ""},
        {"build": "x" * 129},
        {"build": "a\nb"},
        {"build": "\u202eevil"},
        {"build": None},
        {"target": "a b"},
        {"probe": -1},
        {"probe": True},
        {"probe": 1 << 20},
        {"headers": [["/x", "a" * 64]] * 17},
        {"headers": [["/x", "zz"]]},
        {"headers": [["/x\x07", "a" * 64]]},
        {"headers": [["/x"]]},
        {"headers": None},
    ],
)
def test_a_description_that_could_mislead_or_fill_is_refused(change: dict[str, object]) -> None:
    table = {**json.loads(encode_toolchains([GCC]))[0], **change}
    with pytest.raises(CallerError):
        parse_toolchains(json.dumps([table]))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1]", b"[" * 100_000, b"[{}]", b"[" + b" " * (128 << 10) + b"]", b"\xff"]
)
def test_what_is_no_list_of_descriptions_is_refused(raw: bytes) -> None:
    with pytest.raises(CallerError):
        parse_toolchains(raw)


def test_descriptions_without_end_are_refused() -> None:
    with pytest.raises(CallerError):
        parse_toolchains(encode_toolchains([GCC] * 17))
