"""Windows path vectors: what each path means, or why hpcc refuses it.

A changed row is a changed meaning.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcc.core import (
    Digest,
    WindowsPathError,
    check_windows_relative,
    is_short_name,
    parse_windows_path,
    windows_key,
    windows_keys,
)

_TABLE = json.loads(Path(__file__).with_name("windows_paths.json").read_text())
_ROOT = parse_windows_path(_TABLE["root"])


@pytest.mark.parametrize("row", _TABLE["paths"], ids=lambda row: ascii(row[0]))
def test_a_path_means_one_file_or_is_refused(row: list[str]) -> None:
    text, expected, *key = row
    if expected.startswith("!"):
        with pytest.raises(WindowsPathError) as caught:
            parse_windows_path(text, cwd=_ROOT).relative_to(_ROOT)
        assert caught.value.reason == expected[1:]
        return
    relative = parse_windows_path(text, cwd=_ROOT).relative_to(_ROOT)
    assert [relative, windows_key(relative)] == [expected, *key]
    assert check_windows_relative(relative) == relative


@pytest.mark.parametrize(("length", "is_good"), [(259, True), (260, False), (5000, False)])
def test_the_limit_counts_utf_16_units(length: int, is_good: bool) -> None:
    name = "\U0001f600" * 100 + "/"  # 201 units
    text = "C:\\w\\" + name + "a" * (length - 5 - 201)
    if is_good:
        assert parse_windows_path(text)
    else:
        with pytest.raises(WindowsPathError, match="UTF-16 units"):
            parse_windows_path(text)


def test_a_name_has_at_most_255_units() -> None:
    with pytest.raises(WindowsPathError, match="255"):
        parse_windows_path("C:\\" + "a" * 256)


def test_a_relative_path_without_a_directory_is_refused() -> None:
    with pytest.raises(WindowsPathError) as caught:
        parse_windows_path("a.c")
    assert caught.value.reason == "relative-path"


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "a/../b", "./a", "a\\b", "a/", "C:/a", "a/nul", "a./b", "x\ud800"]
)
def test_what_travels_is_plain(path: str) -> None:
    with pytest.raises(WindowsPathError):
        check_windows_relative(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PROGRA~1", True), ("a~1.h", True), ("ABCDE~12.CPP", True), ("file~12345.cpp", False),
        ("a~b.h", False), ("~.h", False), ("PROGRA~1.html", False), ("a.b~1", False), ("a.h", False),
    ],
)  # fmt: skip
def test_a_short_name_is_known_by_its_form(name: str, expected: bool) -> None:
    assert is_short_name(name) is expected


def _digest(text: str) -> Digest:
    return Digest.of(text.encode())


def test_checkouts_that_differ_in_case_have_the_same_keys() -> None:
    one = {"Src/A.h": _digest("a"), "src/b.c": _digest("b")}
    other = {"src/a.H": _digest("a"), "SRC/B.c": _digest("b")}
    assert set(windows_keys(one)) == set(windows_keys(other))


def test_two_contents_under_one_key_are_an_error_not_the_last() -> None:
    files = {"A.h": _digest("1"), "a.h": _digest("2")}
    with pytest.raises(WindowsPathError) as caught:
        windows_keys(files)
    assert caught.value.reason == "case-conflict"
    assert windows_keys({"A.h": _digest("1"), "a.h": _digest("1")}) == {"a.h": "A.h"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u212a.h", "k.h"),
        ("\u00df.h", "ss.h"),
        ("\u00e9", "e\u0301"),
        ("\u017f", "s"),
        ("\u0131", "i"),
        ("\u00c9", "\u00e9"),
    ],
)
def test_files_that_ntfs_keeps_apart_never_share_a_key(one: str, other: str) -> None:
    assert windows_key(one) != windows_key(other)
