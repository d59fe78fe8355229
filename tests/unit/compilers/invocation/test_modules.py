"""What a command line, a map, a depfile and a `.ddi` file tell about modules."""

from __future__ import annotations

import json

import pytest

from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.modules import (
    MODULE_FLAGS,
    USE,
    ModuleList,
    declared_module,
    interfaces_in_map,
    mentions_modules,
    names_map_file,
    parts_of_unit,
    read_listing,
    root_of_interfaces,
)
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

LISTING = b"""{
"rules": [
{
"primary-output": "a.o",
"requires": [
]
}
],
"version": 0,
"revision": 0
}
"""
RULE = b"a.o: a.cpp /usr/include/stdc-predef.h \\\n a.modmap a.h\na.h:\n"


def _read(line: str, program: bytes = b"g++") -> Invocation | Bypass:
    return read_invocation(program, tuple(line.encode().split()))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-fmodules-ts -MD -c a.cc", ""),
        ("-fmodules-ts -fmodule-mapper=m -fdeps-format=p1689r5 -MD -c a.cc", ""),
        ("-fmodules-ts -c a.cc", ""),
        ("-fmodule-mapper=m -MD -c a.cc", "modules"),
        ("-fdeps-format=p1689r5 -MD -c a.cc", "modules"),
        ("-fmodules-ts -MMD -c a.cc", "modules"),
        ("-fmodules-ts -Wp,-MD,a.d -c a.cc", "modules"),
        ("-fmodules-ts -c a.ii", "no-preprocessing"),
        ("-fmodules-ts -c -x c a.cc", "modules"),
        ("-fmodules-ts -c -x assembler-with-cpp a.S", "modules"),
        ("-fmodules-ts -c a.mm", "modules"),
        ("-fmodules-ts -fmodule-only -MD -c a.cc", "modules"),
        ("-fmodules-ts -fdeps-file=x -fdeps-format=p1689r5 -MD -c a.cc", "modules"),
        ("-fmodules-ts -fdeps-format=other -MD -c a.cc", "modules"),
        ("-fmodules-ts -fmodule-header -MD -c a.cc", "header-unit"),
        ("-fmodules-ts -fmodule-header a.h", "header-unit"),
        ("-fmodule-header=user a.h -o a.pcm", "header-unit"),
        ("-fmodules-ts -x c++-system-header vector", "header-unit"),
        ("-fmodules-ts -c -x c++-user-header a.h", "header-unit"),
        ("-x c++-user-header a.h --precompile -o a.pcm", "modules"),
        ("--precompile a.cppm -o a.pcm", "modules"),
        ("-fmodules -MD -c a.cc", "modules"),
        ("-fmodules-ts -fmodule-mapper=m -fmodule-mapper=n -MD -c a.cc", "module-mapper"),
        ("-fmodules-ts -fmodule-mapper=|m -MD -c a.cc", "module-mapper"),
        ("-fmodules-ts -fdeps-format=p1689r5 -c a.cc", "odd-dependencies"),
        ("-fmodules-ts -Mno-modules -MD -c a.cc", "unknown-flag"),
    ],
)
def test_what_may_be_cached(line: str, reason: str) -> None:
    found = _read(line)
    assert (found.reason if isinstance(found, Bypass) else "") == reason


@pytest.mark.parametrize(("major", "is_known"), [(12, False), (13, False), (14, True), (15, False)])
@pytest.mark.parametrize("flag", sorted(MODULE_FLAGS))
def test_only_the_version_that_was_asked_counts(flag: str, major: int, is_known: bool) -> None:
    value = "m" if flag.endswith("=") else ""
    found = _read(f"-fmodules-ts {flag}{value} -MD -c a.cc")
    assert isinstance(found, Invocation)
    refusal = GNU.check_versions(found, major)
    assert refusal == (None if is_known else Bypass(BypassReason.MODULES))


def test_neither_content_keys_nor_texts_without_comments() -> None:
    """The first would hit where header units lie, the second hide a comment in the map."""
    found, plain = _read("-fmodules-ts -MD -c a.cc -o a.o"), _read("-MD -c a.cc -o a.o")
    assert isinstance(found, Invocation)
    assert isinstance(plain, Invocation)
    assert GNU.content_form(plain, 14) is not None
    assert GNU.content_form(found, 14) is None
    assert GNU.lex_mode(plain, 14, has_hidden_flags=False) is not None
    assert GNU.lex_mode(found, 14, has_hidden_flags=False) is None


@pytest.mark.parametrize("name", [b"m", b"d/a.cpp.o.modmap", b"/x/@y", b"a=b", b"a<b>", b"a|b"])
def test_a_file_is_a_map(name: bytes) -> None:
    assert names_map_file(name)


@pytest.mark.parametrize(
    "name", [b"", b"|m", b"@m", b"=m", b"<1", b"<1>2", b"<>", b"h:1", b":1", b"m?x", b"?", b"a b"]
)
def test_nothing_else_is_a_map(name: bytes) -> None:
    assert not names_map_file(name)


@pytest.mark.parametrize(
    ("text", "root"),
    [
        (None, b"gcm.cache"),
        (b"", b""),
        (b"$root .\n", b"."),
        (b"$root /x/y\nm m.gcm\na.b:c-d ../z\n", b"/x/y"),
        (b"m m.gcm\n", b""),
        (b"$root .", None),
        (b"$root a b\n", None),
        (b"$root\n", None),
        (b"$root .\r\n", None),
        (b"m\n", None),
        (b"m m.gcm\n$root x\n", None),
        (b"$root x\n$root y\n", None),
        (b"./a.h a.gcm\n", None),
        (b"/usr/a.h a.gcm\n", None),
        (b"# m m\n", None),
        (b" m m\n", None),
        (b"\xff m\n", None),
    ],
)
def test_the_root_of_a_map(text: bytes | None, root: bytes | None) -> None:
    assert root_of_interfaces(text) == root


def test_a_plain_unit_uses_none() -> None:
    assert not mentions_modules(RULE)
    assert read_listing(LISTING) == ModuleList(b"", ())


@pytest.mark.parametrize("more", [b"a.o: m.c++m\n", b"CXX_IMPORTS += m.c++m\n", b"m.gcm:| a.o\n"])
def test_words_of_modules_in_a_depfile(more: bytes) -> None:
    assert mentions_modules(RULE + more)


def listed(**rule: object) -> bytes:
    """Return a list of modules with one rule."""
    return json.dumps({"rules": [{"primary-output": "a.o", **rule}], "version": 0}).encode()


def test_what_a_list_says() -> None:
    one = {"logical-name": "a.b", "is-interface": True}
    part = {"logical-name": "a:p"}
    assert read_listing(listed(provides=[one], requires=[part])) == ModuleList(b"a.b", (b"a:p",))
    assert read_listing(listed(provides=[], requires=[])) == ModuleList(b"", ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        LISTING + LISTING,
        LISTING[:-3],
        b'{"rules": []}',
        listed(requires=[{"logical-name": "a", "lookup-method": "include-quote"}]),
        listed(requires=[{"logical-name": "./a.h"}]),
        listed(requires=[{"logical-name": 1}]),
        listed(requires=[{"is-interface": True}]),
        listed(requires=["a"]),
        listed(requires=1),
        listed(provides=[{"logical-name": "a"}, {"logical-name": "b"}]),
        listed(other=[]),
    ],
)
def test_other_lists_are_not_believed(data: bytes) -> None:
    assert read_listing(data) is None


@pytest.mark.parametrize(
    ("text", "module"),
    [
        (b"export module a;\n", b"a"),
        (b'module;\n#include "x.h"\n  export  module a.b : p [[x]] ;\n', b"a.b:p"),
        (b"module a:p;\n", b"a:p"),
        (b"// export module a;\nexport module b;\n", b"b"),
        (b"module a;\n", b""),
        (b"module;\nmodule :private;\nimport a;\n", b""),
        (b"export module\na;\n", b""),
    ],
)
def test_what_a_source_seems_to_declare(text: bytes, module: bytes) -> None:
    assert declared_module(text) == module


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (b"$root .\na x.gcm\na:p /y.gcm\n", {b"a": b"x.gcm", b"a:p": b"/y.gcm"}),
        (b"$root r\na x.gcm\n", {b"a": b"r/x.gcm"}),
        (b"a x.gcm\n", {b"a": b"x.gcm"}),
        (b"a x.gcm\na y.gcm\n", {}),
        (b"./h.h x.gcm\n", {}),
        (b"$root .\n", {}),
    ],
)
def test_the_files_in_a_map(text: bytes, files: dict[bytes, bytes]) -> None:
    assert interfaces_in_map(text) == files


def test_where_the_unit_of_a_header_is() -> None:
    assert parts_of_unit(b"/usr/include/x.h") == (b"usr", b"include", b"x.h")
    assert parts_of_unit(b"/a/../b//./c..h") == (b"a", b",,", b"b", b"c..h")


@pytest.mark.parametrize("line", [b"module;", b"export module a;", b"import a;", b"  import <x>;"])
def test_the_line_that_a_message_names(line: bytes) -> None:
    assert USE.search(b"int x;\n" + line + b"\n")
    assert not USE.search(b"int " + line.replace(b";", b"_") + b" = 0;\n// " + line)
