"""Compilation databases: only a command that LLVM certainly takes is found."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.host.databases import Command, Databases, read_database

ENTRY = {
    "directory": "/b",
    "command": "/usr/bin/cc -c '../s/a b.c' -DX=\\\"1\\\"",
    "file": "/s/a b.c",
}


def _read(*entries: object) -> dict[bytes, tuple[bytes, ...] | None]:
    return _read_text(json.dumps(entries).encode())


def _read_text(text: bytes) -> dict[bytes, tuple[bytes, ...] | None]:
    """Return the directory and the words of each source's command."""
    found: dict[bytes, tuple[bytes, ...] | None] = {}
    for name, command in read_database(text).items():
        words = None if command is None else command.divided()
        found[name] = (command.directory, *words) if command and words else None
    return found


def test_commands_are_divided_as_llvm_divides_them() -> None:
    words = (b"/b", b"/usr/bin/cc", b"-c", b"../s/a b.c", b'-DX="1"')
    assert _read(ENTRY) == {b"/s/a b.c": words}
    entry = {"directory": "/b", "arguments": ["cc", "-c", "x y.c"], "file": "x y.c", "output": "o"}
    assert _read(entry) == {b"/b/x y.c": (b"/b", b"cc", b"-c", b"x y.c")}
    entry = {"directory": "/b", "arguments": ["cc -c x.c"], "file": "../x.c"}
    assert _read(entry) == {b"/x.c": (b"/b", b"cc", b"-c", b"x.c")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  cc  -c a.c ", ["cc", "-c", "a.c"]),
        (r"cc -DX=\"a\\b\" a\ b.c", ["cc", '-DX="a\\b"', "a b.c"]),
        (r"""cc "-DX=\"a'b\"" 'c d'.c""", ["cc", '-DX="a\'b"', "c d.c"]),
        # Other readers of such texts drop these backslashes.
        (r"""cc '-DX=\"a\b\"' -D"Y"='"'""", ["cc", r"-DX=\"a\b\"", '-DY="']),
        # Others divide here.
        ("cc\t-c a\nb.c", ["cc\t-c", "a\nb.c"]),
    ],
)
def test_quotes_mean_what_they_mean_to_llvm(text: str, words: list[str]) -> None:
    found = _read({**ENTRY, "command": text})
    assert found == {b"/s/a b.c": (b"/b", *(word.encode() for word in words))}


@pytest.mark.parametrize(
    "entry",
    [
        {**ENTRY, "command": "cc -c 'a b.c"},
        {**ENTRY, "command": 'cc -c "a b.c\\"'},
        {**ENTRY, "command": "cc -c a.c \\"},
        {**ENTRY, "command": "cc '' a.c"},
        {**ENTRY, "command": ""},
        {**ENTRY, "arguments": ["cc", "-DX=\0", "a.c"]},
        {**ENTRY, "directory": "b"},
        {**ENTRY, "directory": "/b\0c"},
        {"directory": "/b", "arguments": [], "file": "/s/a b.c"},
    ],
)
def test_uncertain_commands_are_none(entry: dict[str, object]) -> None:
    assert _read(entry).get(b"/s/a b.c") is None


def test_what_has_no_quotes_is_a_text() -> None:
    text = (
        b'[{"directory": "/b", "file": 5, "arguments": ["cc", -1, 2.5e+3, null], "output": null}]'
    )
    assert _read_text(text) == {b"/b/5": (b"/b", b"cc", b"-1", b"2.5e+3", b"null")}


@pytest.mark.parametrize(
    "bad",
    [
        {"directory": "/b", "file": "/s/x.c"},
        {"directory": "/b", "command": "cc x.c"},
        {"file": "/s/x.c", "command": "cc x.c"},
        {**ENTRY, "arguments": "cc x.c"},
        {**ENTRY, "arguments": None},
        {**ENTRY, "arguments": ["cc", ["x.c"]]},
        {**ENTRY, "arguments": ["cc", {}]},
        {**ENTRY, "arguments": ["cc", ENTRY]},
        {**ENTRY, "command": ["cc", "x.c"]},
        {**ENTRY, "command": {}},
        {**ENTRY, "output": ["x.o"]},
        {**ENTRY, "output": ENTRY},
        {**ENTRY, "directory": ["/b"]},
        {**ENTRY, "file": ["/s/x.c"]},
        [ENTRY],
        "cc x.c",
        None,
    ],
)
def test_one_entry_that_llvm_rejects_leaves_no_command(bad: object) -> None:
    good = {**ENTRY, "file": "/s/b.c", "output": "b.o"}
    assert list(_read(good)) == [b"/s/b.c"]
    assert _read(good, bad) == {}


@pytest.mark.parametrize(
    ("directory", "file"),
    [
        ("/b", "/s/a.c"),
        ("/b", "/s/x/../a.c"),
        ("/b", "/s//./a.c"),
        ("/b", "/s/a.c/"),
        ("/b", "/s\\a.c"),
        ("/b", "../s/a.c"),
        ("/s", "x\\..\\a.c"),
        ("\\s", "a.c"),
    ],
)
def test_a_source_with_two_entries_is_not_certain(directory: str, file: str) -> None:
    first = {"directory": "/b", "command": "cc a.c", "file": "/s/a.c"}
    entries = [first, {**first, "directory": directory, "file": file}]
    for both in (entries, entries[::-1]):
        assert _read(*both) == {b"/s/a.c": None}


@pytest.mark.parametrize("file", ["/s/x/../a.c", "/s\\a.c", "s\\a.c"])
def test_a_name_that_not_every_llvm_finds_is_not_certain(file: str) -> None:
    entry = {"directory": "/", "command": "cc a.c", "file": file}
    assert _read(entry) == {b"/s/a.c": None}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b"[" * 100_000,
        json.dumps([ENTRY, {**ENTRY, "unknown": ""}]).encode(),
        b'[{"directory": "/b", "directory": "/c", "command": "cc", "file": "/a"}]',
        b'[{"directory": "/b", "command": "\\ud83d\\ude00", "file": "/a"}]',
        b"\xff\xfe",
        # LLVM finds /b/a.c here.
        b'[{"directory": "/b", "command": "cc", "file": "//a.c"}]',
        b'[{"directory": "//b", "command": "cc", "file": "a.c"}]',
    ],
)
def test_what_llvm_may_read_otherwise_has_no_commands(text: bytes) -> None:
    assert read_database(text) == {}


def test_an_edit_is_seen_and_a_second_database_refuses(tmp_path: Path) -> None:
    now = [0]
    databases = Databases(FileMemo(lambda: now[0]))
    directory, file = os.fsencode(tmp_path), tmp_path / "compile_commands.json"
    assert databases.find(directory, b"/s/a b.c") is None
    file.write_text(json.dumps([ENTRY]))
    now[0] = file.stat().st_mtime_ns + 10**10
    found = databases.find(directory, b"/s/a b.c")
    assert found is not None
    assert (found.directory, found.words[0]) == (b"/b", b"/usr/bin/cc")
    assert databases.find(directory, b"/s/other.c") is None
    file.write_text(json.dumps([{**ENTRY, "command": "/usr/bin/gcc"}]))
    again = databases.find(directory, b"/s/a b.c")
    assert again is not None
    assert again.words == (b"/usr/bin/gcc",)
    (tmp_path / "compile_flags.txt").touch()
    assert databases.find(directory, b"/s/a b.c") is None


def test_runs_that_start_together_parse_a_database_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, parsed = 8, 0
    together, other_parser = Barrier(threads), Barrier(2)

    class Memo(FileMemo):
        def digest(self, path: bytes) -> bytes | None:
            found = super().digest(path)
            together.wait(timeout=30)
            return found

    def parse(text: bytes) -> dict[bytes, Command | None]:
        nonlocal parsed
        parsed += 1
        with suppress(BrokenBarrierError):  # the only parser
            other_parser.wait(timeout=0.1)
        return read_database(text)

    monkeypatch.setattr("hpcc.cache.host.databases.read_database", parse)
    (tmp_path / "compile_commands.json").write_text(json.dumps([ENTRY]))
    databases = Databases(Memo(time.time_ns))
    with ThreadPoolExecutor(threads) as pool:
        find = partial(databases.find, os.fsencode(tmp_path))
        found = set(pool.map(find, [b"/s/a b.c"] * threads))
    assert (len(found), None in found, parsed) == (1, False, 1)
