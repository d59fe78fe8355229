"""Quoting, response files and the variables CL and _CL_, by Microsoft's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.compilers.msvc.text import (
    expand_windows_responses,
    fold_variables,
    join_windows,
    split_windows,
)
from hpcc.compilers.spec.table import Bypass


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # The examples of "Parsing C command-line arguments".
        (rb'"abc" d e', [b"abc", b"d", b"e"]),
        (rb'a\\b d"e f"g h', [rb"a\\b", b"de fg", b"h"]),
        (rb"a\\\"b c d", [rb"a\"b", b"c", b"d"]),
        (rb'a\\\\"b c" d e', [rb"a\\b c", b"d", b"e"]),
        (rb'a"b"" c d', [rb'ab" c d']),
        (b'""', [b""]),
        (b'a "" b', [b"a", b"", b"b"]),
        (rb'"a\\"', [b"a\\"]),
        (rb"C:\dir\ x", [b"C:\\dir\\", b"x"]),
        (b"", []),
        (b" \t\r\n", []),
        (b"a\nb", [b"a", b"b"]),
    ],
)
def test_a_command_line_is_split(line: bytes, expected: list[bytes]) -> None:
    assert split_windows(line) == expected


@given(st.lists(st.binary(max_size=12).filter(lambda b: b"\0" not in b), max_size=6))
def test_what_is_joined_is_split_into_the_same(arguments: list[bytes]) -> None:
    # A carriage return separates in files, but not for CreateProcess; it is quoted nowhere.
    arguments = [a.replace(b"\r", b"x") for a in arguments]
    assert split_windows(join_windows(arguments)) == arguments


@given(st.text(alphabet='\\" ax', max_size=30))
def test_any_line_is_split_without_an_error(text: str) -> None:
    for argument in split_windows(text.encode()):
        assert len(argument) <= len(text)


def test_variables_go_before_and_behind() -> None:
    found = fold_variables([b"/c", b"a.c"], before=b'/DA#1 "/I x y"', behind=b"-DB /W4")
    assert found == (b"/DA=1", b"/I x y", b"/c", b"a.c", b"-DB", b"/W4")
    assert fold_variables([b"x"], before=b"/DA=b#c", behind=b"/FIa#b") == (
        b"/DA=b#c", b"x", b"/FIa#b",
    )  # fmt: skip


def test_variables_that_would_be_files_or_too_long_are_a_bypass() -> None:
    assert fold_variables([b"/c", b"--", b"a.c"], before=b"", behind=b"/W4") == Bypass(
        "environment"
    )
    assert isinstance(fold_variables([], before=b"x" * 40_000, behind=b""), Bypass)


_FILES = {
    b"plain": b'/DA "/I c d"\r\n/W4\n',
    b"mark": b"\xef\xbb\xbf/DB",
    b"wide": "/DÄ".encode("utf-16"),
    b"wide-be": b"\xfe\xff" + "/DC".encode("utf-16-be"),
    b"outer": b"/DO @plain",
    b"loop": b"@loop",
    b"nul": b"/D\0",
    b"odd": b"\xff\xfe/",
    b"long": b"x" * (300 << 10),
}


def _read(name: bytes) -> bytes | None:
    return _FILES.get(name)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"@plain", (b"/DA", b"/I c d", b"/W4")),
        (b"@mark", (b"/DB",)),
        (b"@wide", ("/DÄ".encode(),)),
        (b"@wide-be", (b"/DC",)),
        (b"@outer", (b"/DO", b"/DA", b"/I c d", b"/W4")),
    ],
)
def test_a_response_file_is_expanded(argument: bytes, expected: tuple[bytes, ...]) -> None:
    assert expand_windows_responses([argument], _read, is_clang=True) == expected


@pytest.mark.parametrize("name", [b"none", b"loop", b"nul", b"odd", b"long"])
def test_a_response_file_that_is_none_is_a_bypass(name: bytes) -> None:
    found = expand_windows_responses([b"@" + name], _read, is_clang=True)
    assert found == Bypass("response-file")


def test_cl_looks_into_no_nested_file() -> None:
    assert expand_windows_responses([b"@outer"], _read, is_clang=False) == Bypass("response-file")


@pytest.mark.parametrize(
    ("content", "is_read"),
    [
        (b"/DA\r\n/W4", True),
        ("/D\xc4".encode("utf-16"), True),
        ("/DA".encode("utf-16-be"), False),
        (b"\xfe\xff" + "/DA".encode("utf-16-be"), False),
        (b"\xef\xbb\xbf/DA", False),
        (b"\xef\xbb\xbf/D\xc3\x84", False),
        (b"/D\xc3\x84", False),
        (b"/D\xc4", False),
        (b'"/D A\n B"', False),
        ("/D\0".encode("utf-16"), False),
    ],
)
def test_a_text_that_cl_may_read_otherwise_is_a_bypass(content: bytes, is_read: bool) -> None:
    found = expand_windows_responses([b"@x"], lambda _: content, is_clang=False)
    assert (found != Bypass("response-file")) is is_read
