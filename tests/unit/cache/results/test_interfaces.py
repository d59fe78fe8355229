"""The record of a compiled interface: bytes that are not one, and files that are not named."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.results.interfaces import _decode, _encode, imports, without_imports
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.invocation.interfaces import imported_file
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.spec.table import Bypass
from hpcc.core import IntegrityError

FILES = ((b"/p/base.cppm", b"a" * 32), (b"/p/base.pcm", b"b" * 32))


def prepared(cwd: Path, arguments: str) -> Any:
    invocation = GNU.read(b"clang++", tuple(arguments.encode().split()))
    assert isinstance(invocation, Invocation), invocation
    return SimpleNamespace(invocation=invocation, cwd=os.fsencode(cwd))


def test_a_record_comes_back() -> None:
    assert _decode(_encode([FILES, ()])) == (FILES, ())
    assert _decode(_encode([])) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        encode_fields([b"interface-0", encode_fields([]), b""]),
        encode_fields([b"interface-1", encode_fields([b"/a"]), b"short"]),
        encode_fields([b"interface-1", b"junk", b""]),
        encode_fields([b"interface-1", encode_fields([])]),
        encode_fields([]),
        _encode([FILES])[:-1],
        _encode([FILES]) + b"x",
    ],
)
def test_other_bytes_are_not_a_record(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        _decode(data)


@pytest.mark.parametrize(
    ("value", "file"),
    [
        (b"a=b.pcm", b"b.pcm"),
        (b"a.b:c=/x/y=z.pcm", b"/x/y=z.pcm"),
        (b"b.pcm", None),
        (b"=b.pcm", None),
        (b"a=", None),
        (b"a:=b", None),
        (b"a b=c", None),
        (b"a=b\nc", None),
    ],
)
def test_the_file_of_an_import(value: bytes, file: bytes | None) -> None:
    assert imported_file(value) == file


def test_named_interfaces_are_left_out_of_a_list(tmp_path: Path) -> None:
    one = prepared(tmp_path, "-c a.cpp -fmodule-file=m=x.pcm -fmodule-file=n=/y/n.pcm")
    assert imports(one) == (os.fsencode(tmp_path / "x.pcm"), b"/y/n.pcm")
    named = os.fsencode(tmp_path) + b"/x.pcm"
    assert without_imports(one, (b"a.cpp", b"x.pcm", named)) == (b"a.cpp",)
    with pytest.raises(UncacheableError, match="module-file"):
        without_imports(one, (b"a.cpp", b"other.pcm"))
    assert without_imports(prepared(tmp_path, "-c a.cpp"), (b"z.pcm",)) == (b"z.pcm",)


@pytest.mark.parametrize(
    ("arguments", "language"),
    [
        ("-c a.cppm", Language.CXX_MODULE),
        ("-c -x c++-module a.cc -fmodule-output=a.pcm", Language.CXX_MODULE),
        ("-c a.cc -fmodule-file=m=x.pcm", Language.CXX),
        ("-c a.cc -fmodule-output=a.pcm", None),
        ("-c a.cppm -fmodule-output=a.pcm -fmodule-output=b.pcm", None),
        ("-c a.c -fmodule-file=m=x.pcm", Language.CXX),
        ("-c -x c a.c -fmodule-file=m=x.pcm", None),
        ("-c a.cc -fmodule-file=x.pcm", None),
        ("-S a.cppm", None),
        ("-c a.cppm -emit-llvm", None),
        ("-fsyntax-only a.cc -fmodule-file=m=x.pcm", None),
        ("--precompile a.cppm -o a.pcm", None),
        ("-c a.ixx", None),
    ],
)
def test_which_commands_are_kept(arguments: str, language: Language | None) -> None:
    found = GNU.read(b"clang++", tuple(arguments.encode().split()))
    if language is None:
        assert isinstance(found, Bypass)
    else:
        assert isinstance(found, Invocation)
        assert found.language is language
        assert found.concerns_interfaces
