"""Members of libraries, also of hostile ones."""

from __future__ import annotations

import hashlib
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.core import CallerError
from hpcc.evidence.archive import read_members
from hpcc_testkit.evidence.made import library
from hpcc_testkit.suite.examples import examples

NAMES = st.from_regex(r"[a-z][a-z0-9._-]{0,40}\.o", fullmatch=True)


def members(data: bytes) -> list[tuple[str, str]]:
    return [(m.name, m.digest) for m in read_members(BytesIO(data), "lib.a")]


@settings(max_examples=examples(50))
@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6))
def test_members_come_back_in_order(objects: dict[str, bytes]) -> None:
    assert members(library(objects)) == [
        (name, hashlib.sha256(data).hexdigest()) for name, data in objects.items()
    ]


def member(name: bytes, data: bytes, size: bytes | None = None) -> bytes:
    sized = size if size is not None else b"%d" % len(data)
    return b"%-16b%-32b%-10b`\n" % (name, b"0", sized) + data


def test_short_names_and_bsd_names() -> None:
    data = b"!<arch>\n" + member(b"a.o/", b"aa") + member(b"#1/6", b"bsd.o\0bb")
    assert members(data) == [
        ("a.o", hashlib.sha256(b"aa").hexdigest()),
        ("bsd.o", hashlib.sha256(b"bb").hexdigest()),
    ]


def numbers(order: Literal["big", "little"], width: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(width, order) for value in values)


# Each names the member at 456, whatever size the tables before it have.
TABLES = {
    "gnu": [(b"/", numbers("big", 4, 1, 456) + b"f\0")],
    "gnu-64": [(b"/SYM64/", numbers("big", 8, 1, 456) + b"f\0")],
    "microsoft": [
        (b"/", numbers("big", 4, 1, 456) + b"f\0"),
        (b"/", numbers("little", 4, 1, 456, 1) + b"\1\0f\0"),
    ],
    "bsd": [(b"__.SYMDEF", numbers("little", 4, 8, 0, 456, 2) + b"f\0")],
    "darwin": [
        (b"#1/20", b"__.SYMDEF SORTED\0\0\0\0" + numbers("little", 4, 8, 0, 456, 2) + b"f\0")
    ],
}


def with_tables(tables: list[tuple[bytes, bytes]], rest: bytes) -> bytes:
    """Return a library whose first member is at 456."""
    data = b"!<arch>\n" + b"".join(member(name, table) for name, table in tables)
    room = 456 - len(data) - 60
    return data + member(b"//", b" " * room) + rest


@pytest.mark.parametrize("kind", TABLES)
def test_tables_where_linkers_look_for_them_are_not_members(kind: str) -> None:
    data = with_tables(TABLES[kind], member(b"a.o/", b"aa") + member(b"b.o/", b"bb"))
    assert [name for name, _ in members(data)] == ["a.o", "b.o"]


@pytest.mark.parametrize("kind", TABLES)
def test_a_symbol_that_leads_elsewhere_than_to_a_member_is_refused(kind: str) -> None:
    tables = [
        (name, table.replace(b"\xc8", b"\xc9")) for name, table in TABLES[kind]
    ]  # fmt: skip
    with pytest.raises(CallerError, match="names a place without a member"):
        members(with_tables(tables, member(b"a.o/", b"aa")))
    cut = [(name, table[: table.index(b"\xc8")]) for name, table in TABLES[kind]]
    with pytest.raises(CallerError, match="symbol table has another form"):
        members(with_tables(cut, member(b"a.o/", b"aa")))


@pytest.mark.parametrize("name", [b"/", b"//", b"/SYM64/", b"__.SYMDEF", b"__.SYMDEF/"])
def test_an_object_with_the_name_of_a_table_is_a_member(name: bytes) -> None:
    data = with_tables(TABLES["gnu"], member(b"a.o/", b"aa") + member(name, b"hidden"))
    assert [digest for _, digest in members(data)][1:] == [hashlib.sha256(b"hidden").hexdigest()]


def test_an_object_with_the_long_name_of_a_table_is_a_member() -> None:
    names = member(b"//", b"__.SYMDEF/\n ")
    data = b"!<arch>\n" + names + member(b"/0", b"hidden")
    assert members(data) == [("__.SYMDEF", hashlib.sha256(b"hidden").hexdigest())]


def test_linkers_and_this_list_agree_on_what_a_library_has(tmp_path: Path) -> None:
    """The object that defines `hidden` is linked, so it is a member or the library is refused."""
    for name, text in {
        "main": "int hidden(void); int main(void) { return hidden(); }",
        "other": "int other;",
        "hidden": "int hidden(void) { return 0; }",
    }.items():
        (tmp_path / f"{name}.c").write_text(text)
        subprocess.run(["gcc", "-c", f"{name}.c"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rcs", "lib.a", "other.o", "hidden.o"], cwd=tmp_path, check=True)
    plain = (tmp_path / "lib.a").read_bytes()
    wanted = hashlib.sha256((tmp_path / "hidden.o").read_bytes()).hexdigest()
    linked = 0
    for name in (b"hidden.o/", b"/SYM64/", b"__.SYMDEF/", b"__.SYMDEF", b"//", b"/"):
        data = plain.replace(b"hidden.o/".ljust(16), name.ljust(16))
        (tmp_path / "lib.a").write_bytes(data)
        done = subprocess.run(
            ["gcc", "main.o", "lib.a"], cwd=tmp_path, check=False, capture_output=True
        )
        linked += done.returncode == 0
        assert wanted in [digest for _, digest in members(data)], name
    assert linked > 1


@pytest.mark.parametrize(
    "tail",
    [
        b"short", member(b"a.o/", b"aa", b"4"), member(b"a.o/", b"aa", b"-2"),
        member(b"a.o/", b"aa", b""), member(b"/7", b"aa"), member(b"#1/9", b"aa"),
        member(b"#1/99999999", b"aa"), member(b"//", b"", b"99999999"),
        member(b"a.o/", b"aa").replace(b"`", b"'"),
    ],
)  # fmt: skip
def test_malformed_libraries_are_refused(tail: bytes) -> None:
    with pytest.raises(CallerError, match="damaged"):
        members(b"!<arch>\n" + tail)


def test_what_is_no_library_and_thin_ones_are_refused() -> None:
    with pytest.raises(CallerError, match="thin archive"):
        members(b"!<thin>\n")
    with pytest.raises(CallerError, match="not an archive"):
        members(b"\x7fELF")


@settings(max_examples=examples(80))
@given(st.data())
def test_damaged_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    damaged = bytearray(library({"one-long-name-of-a-member.o": b"one", "b.o": b"two!"}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        members(bytes(damaged))
    except CallerError:
        return
