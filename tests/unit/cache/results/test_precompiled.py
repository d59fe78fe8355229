"""The record of a precompiled header: what its users get back, and when there is none."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import Absence
from hpcc.cache.inputs.closure_types import Closure, MadeOf
from hpcc.cache.results.precompiled import PrecompiledHeaders, _decode, _encode, _Record
from hpcc.compilers.clang.family import CLANG
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.core import IntegrityError
from hpcc.store.private import PrivateStore

DATA = b"gpch"
TEXTS = {"all.h": "int all;\n", "one.h": "int one;\n", "blank.cxx": "/* by CMake */\n"}


class Store(dict[bytes, bytes]):
    """Entries in memory."""

    def put(self, key: bytes, payload: bytes) -> bool:
        self[key] = payload
        return True

    def remove(self, key: bytes) -> None:
        del self[key]


class Records:
    """A store of records, and a directory with the files that they name."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.store = os.fsencode(directory), Store()
        self.cwd, self.env = self.directory, dict[bytes, bytes]()
        self.memo = FileMemo(time.time_ns)
        self.headers = PrecompiledHeaders(cast("PrivateStore", self.store), self.memo)
        for name, text in {**TEXTS, "asked.h": ""}.items():
            (directory / name).write_text(text)

    @property
    def files(self) -> tuple[tuple[bytes, bytes], ...]:
        names = (self.directory + b"/" + name.encode() for name in TEXTS)
        return tuple((name, self.memo.digest(name) or b"") for name in names)

    def prepared(self, argv: str, major: int = 12) -> Any:
        program = b"clang++" if "-Xclang" in argv else b"g++"
        invocation = GNU.read(program, tuple(argv.encode().split()))
        assert isinstance(invocation, Invocation), invocation
        return SimpleNamespace(  # only what the records look at
            invocation=invocation,
            family=CLANG if "-Xclang" in argv else GNU,
            identity=SimpleNamespace(major=17 if "-Xclang" in argv else major),
            cwd=self.cwd,
            request=SimpleNamespace(env=self.env),
            source=self.directory + b"/" + invocation.source,
            output=self.directory + b"/" + invocation.output,
        )

    def remember(self, argv: str, data: frozenset[bytes] = frozenset()) -> bool:
        absent = Absence(self.directory, frozenset({b"new.h"}), frozenset())
        closure = Closure(self.files, (self.directory + b"/asked.h",), (absent,), data=data)
        prepared = self.prepared(argv)
        self.headers.remember(prepared, closure, DATA)
        is_header = prepared.invocation.language.is_header
        assert self.headers.has_record(prepared, DATA)
        assert self.headers.has_record(prepared, b"other") is not is_header
        return any(_decode(record) for record in self.store.values())

    def made_of(
        self, argv: str = "-c a.cc", name: bytes = b"all.h.gch", data: bytes = DATA
    ) -> MadeOf | None:
        made_from = self.headers.of_users(self.prepared(argv))
        assert made_from is not None
        found = made_from(os.path.join(self.directory, name), hashlib.sha256(data).digest())
        assert found is None or found.files == self.files
        return found

    def are_known(
        self, argv: str = "-c a.cc", name: bytes = b"all.h.gch", data: bytes = DATA
    ) -> bool:
        return self.made_of(argv, name, data) is not None

    def are_reproduced(self, argv: str = "-c a.cc", name: bytes = b"all.h.gch") -> bool:
        found = self.made_of(argv, name)
        assert found is not None
        return found.is_reproduced()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def test_the_same_bytes_at_the_same_place_are_known(records: Records) -> None:
    assert records.remember("all.h")
    assert records.are_known()
    assert records.are_known(name=b"../" + os.path.basename(records.directory) + b"/all.h.gch")
    assert not records.are_known(data=b"other")
    assert not records.are_known(name=b"one.h.gch")


def test_macros_of_its_making_are_in_the_record(records: Records) -> None:
    assert records.remember("-DA=1 -DB all.h")
    found = records.made_of("-c -DC a.cc")
    assert found is not None
    assert found.macros == (b"A=1", b"B")


@pytest.mark.parametrize("macro", ["-DT=__TIME__", "-DH(x)=__has_include(x)"])
def test_hazards_of_the_command_line_leave_no_record(macro: str, records: Records) -> None:
    assert not records.remember(f"{macro} all.h")


def test_data_and_objects_leave_no_record(records: Records) -> None:
    assert not records.remember("all.h", frozenset({b"/p/x"}))
    assert not records.remember("-c a.cc")


@pytest.mark.parametrize(
    ("argv", "is_recorded"),
    [
        ("-include all.h -x c++-header blank.cxx -o all.h.gch", True),
        ("-include all.h -x c++-header one.h -o all.h.gch", False),
        ("-include all.h -include one.h -x c++-header blank.cxx -o all.h.gch", False),
        ("-imacros all.h -x c++-header blank.cxx -o all.h.gch", False),
    ],
)
def test_one_root(argv: str, is_recorded: bool, records: Records) -> None:
    assert records.remember(argv) is is_recorded
    assert records.are_known() is is_recorded


def test_a_header_beside_it_that_is_not_its_root(records: Records) -> None:
    """A preprocessor would read all.h, whose text is not in it."""
    assert records.remember("one.h -o all.h.gch")
    assert not records.are_known()


_MAKING = "-Xclang -fno-pch-timestamp -o x.pch -x c++-header"
_USING = "-c a.cc -Xclang -include-pch -Xclang x.pch"


@pytest.mark.parametrize(
    ("making", "using", "is_known"),
    [
        ("all.h", "", True),
        ("-Xclang -include -Xclang all.h blank.cxx", "-Xclang -include -Xclang all.h", True),
        ("-Xclang -include -Xclang all.h blank.cxx", "", False),
        ("-Xclang -include -Xclang all.h blank.cxx", "-Xclang -include -Xclang one.h", False),
        (
            "-Xclang -include -Xclang all.h blank.cxx",
            "-include one.h -Xclang -include -Xclang all.h",
            False,
        ),
    ],
)
def test_a_root_that_flags_name(making: str, using: str, is_known: bool, records: Records) -> None:
    assert records.remember(f"{_MAKING} {making}")
    assert records.are_known(f"{_USING} {using}", b"x.pch") is is_known


def test_flags_of_its_users_count_where_the_preprocessor_is_asked(records: Records) -> None:
    assert records.remember("-O1 -Ia all.h")
    assert records.are_reproduced("-O1 -Ia -include all.h -MD -c a.cc -o x.o")
    for argv in ("-O1 -Ib -c a.cc", "-O1 -Ia -DB -c a.cc", "-O2 -Ia -c a.cc", "-O1 -c a.cc"):
        assert not records.are_reproduced(argv), argv


@pytest.mark.parametrize(
    ("flags", "env", "may_differ"),
    [
        ("-I/p", {}, True),
        ("-Ip", {}, False),
        ("--sysroot=/p", {}, True),
        ("--sysroot=p", {}, False),
        ("-nostdinc", {}, False),  # it has no name, which might be the empty one
        ("", {b"CPATH": b"/a:/b"}, True),
        ("", {b"CPATH": b"/a:"}, False),
        ("", {b"CPLUS_INCLUDE_PATH": b"a"}, False),
    ],
)
def test_another_directory(
    flags: str, env: dict[bytes, bytes], may_differ: bool, records: Records
) -> None:
    records.env = env
    assert records.remember(f"{flags} all.h")
    name = records.directory + b"/all.h.gch"
    assert records.are_reproduced(f"{flags} -c a.cc", name)
    records.cwd = b"/elsewhere"
    assert records.are_reproduced(f"{flags} -c a.cc", name) is may_differ
    records.env = {b"CPATH": b"/c"}
    assert not records.are_reproduced(f"{flags} -c a.cc", name)


@pytest.mark.parametrize("name", ["new.h", "asked.h"])
def test_names_that_its_making_looked_for_count_where_the_preprocessor_is_asked(
    name: str, records: Records
) -> None:
    assert records.remember("all.h")
    assert records.are_reproduced()
    path = Path(os.fsdecode(records.directory), name)
    if path.exists():
        path.unlink()
    else:
        path.write_text("")
    assert not records.are_reproduced()


def test_a_damaged_record_is_removed(records: Records) -> None:
    assert records.remember("all.h")
    (key,) = records.store
    records.store[key] = records.store[key][:-1]
    assert not records.are_known()
    assert not records.store
    assert not records.headers.has_record(records.prepared("all.h"), DATA)


def test_who_may_use_one(records: Records) -> None:
    assert records.headers.of_users(records.prepared("all.h")) is None
    for major in (11, 15):
        assert records.headers.of_users(records.prepared("-c a.cc", major)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_fields([b"precompiled-0", b"", b"", b"", b"", b"", b"", b""]),
        encode_fields([b"precompiled-1", b"", b"", b"", b"", b"", b""]),
        encode_fields(
            [b"precompiled-1", b"", b"", b"", b"", encode_fields([b"/a"]), b"a" * 31, b""]
        ),
        encode_fields([b"precompiled-1", b"x", b"", b"", b"", b"", b"", b""]),
    ],
)
def test_bytes_that_are_no_record(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        _decode(data)


@pytest.mark.parametrize("is_source", [False, True])
def test_a_record_comes_back_as_it_was(is_source: bool, records: Records) -> None:
    record = _Record((b"A", b"B=1"), b"/p/all.h", is_source, b"f", records.files, b"state")
    assert _decode(_encode(record)) == record
