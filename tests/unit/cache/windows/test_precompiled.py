"""Precompiled headers of clang-cl: what makes one leaves a record, which its users need."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from hpcc.cache.base.api import Done, Exec, Run, RunReport
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.compilers.spec.table import Bypass
from hpcc.config.settings import CacheSettings, Settings

from .conftest import LONG_AGO, NOTES, Desk, machine, request

FLAGS = ("/nologo", "/c", "/O2", "/Iinc")
PCH = "C:\\w\\p.pch"
NO_TIMES = ("-Xclang", "-fno-pch-timestamp")
MAKE = (*FLAGS, *NO_TIMES, "/Ych.h", "/Fpp.pch", "pch.c")
USE = (*FLAGS, "/Yuh.h", "/Fpp.pch", "x.c")


class Headers:
    """A source that makes a precompiled header, and one that uses it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        desk.disk.put("C:\\w\\pch.c", b'/* a comment */ #include "h.h"\n')
        desk.disk.put("C:\\w\\inc\\h.h", b'#include "in.h"\n#define X 3\n')
        desk.disk.put("C:\\w\\inc\\in.h", b"#define Y 4\n")

    def make(self, *argv: str, files: tuple[str, ...] = ("h.h", "in.h")) -> str:
        """Make the precompiled header; it is older than the next compile."""
        texts = [self.desk.disk.read(f"C:\\w\\inc\\{name}", 99) or b"" for name in files]
        done = self.run(argv or MAKE, {"C:\\w\\pch.obj": b"object", PCH: b"".join(texts)}, files)
        if done == "miss":
            self.desk.disk.put(PCH, b"".join(texts), at=LONG_AGO)
        return done

    def use(self, *argv: str, made_at: int = 0) -> str:
        """Compile what uses it. Its list of headers names none that is in it."""
        if made_at:
            self.desk.disk.put(PCH, self.desk.disk.read(PCH, 999) or b"", at=made_at)
        return self.run(argv or USE, {"C:\\w\\x.obj": b"object of a user"}, ())

    def run(self, argv: tuple[str, ...], written: dict[str, bytes], files: tuple[str, ...]) -> str:
        asked = request(*argv, program=self.desk.program)
        found = self.desk.cache.begin(asked, lambda: False)
        if isinstance(found, Done):
            return "hit"
        if isinstance(found, Exec):
            return found.reason
        assert isinstance(found, Run)
        for path, data in written.items():
            self.desk.disk.put(path, data, at=time.time_ns())
        notes = b"".join(NOTES + b".\\inc/" + name.encode() + b"\r\n" for name in files)
        self.desk.cache.finish(found, RunReport(0, 0, notes, b"", False))
        return "miss"

    def refused(self) -> Counter[str]:
        """Return how often each reason was counted why a result was not stored."""
        counted = self.desk.counters.snapshot().items()
        return Counter({n.removeprefix("uncacheable."): c for n, c in counted if "uncach" in n})


@pytest.fixture
def headers(desk: Desk) -> Headers:
    return Headers(desk)


def test_maker_and_users_are_cached(headers: Headers) -> None:
    assert [headers.make(), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    disk = headers.desk.disk
    made = disk.files.pop(PCH)
    del disk.files["C:\\w\\pch.obj"]
    assert headers.make() == "hit"
    assert (disk.files[PCH], disk.files["C:\\w\\pch.obj"]) == (made, b"object")
    assert headers.use() == "hit"


def test_every_text_in_it_is_an_input_of_its_users(headers: Headers) -> None:
    assert [headers.make(), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    headers.desk.disk.put("C:\\w\\inc\\in.h", b"#define Y 5\n")
    # The compiler still uses the old text: nothing is known of such a compile.
    assert [headers.use(), headers.use()] == ["miss", "miss"]
    assert headers.refused() == {"pch-stale": 2}
    assert [headers.make(), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    headers.desk.disk.put("C:\\w\\inc\\in.h", b"#define Y 4\n")
    assert [headers.make(), headers.use()] == ["hit", "hit"]


def test_one_that_hpcc_did_not_see_made_is_refused(headers: Headers) -> None:
    headers.desk.disk.put(PCH, b"made elsewhere")
    assert [headers.use(), headers.use()] == ["miss", "miss"]
    assert headers.refused() == {"pch": 2}
    headers.make()
    headers.desk.disk.put(PCH, b"made elsewhere")
    assert headers.use() == "miss"
    assert headers.refused() == {"pch": 3}


def test_one_with_times_is_made_each_time_and_its_users_are_cached(headers: Headers) -> None:
    argv = tuple(word for word in MAKE if word not in NO_TIMES)
    assert [headers.make(*argv), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    assert [headers.make(*argv), headers.use()] == ["miss", "hit"]
    assert headers.refused() == {"pch-timestamp": 2}


def test_one_that_was_written_during_the_compile_refuses_the_result(headers: Headers) -> None:
    headers.make()
    assert headers.use(made_at=time.time_ns()) == "miss"
    assert headers.refused() == {"modified-during-compile": 1}


def test_a_clock_in_it_is_looked_for_in_its_users(headers: Headers) -> None:
    # The preprocessor does not answer here, so a text with such a word is refused.
    headers.desk.disk.put("C:\\w\\inc\\in.h", b"#define STAMP __TIME__\n")
    assert [headers.make(), headers.use()] == ["miss", "miss"]
    assert headers.refused() == {"expansion-failed": 1, "pch": 1}


@pytest.mark.parametrize(
    ("argv", "source"),
    [
        (("/O1", *USE), b""),
        ((*USE, "/DZ"), b""),
        ((*USE, "/Iother"), b""),
        (USE, b'#define X 9\n#include "h.h"\n'),
        (USE, b"#include <h.h>\n"),
        (USE, b'#include "H.h"\n'),
        ((*USE, "/FIz.h"), b""),
    ],
)
def test_other_flags_or_text_before_it_refuse_the_result(
    headers: Headers, argv: tuple[str, ...], source: bytes
) -> None:
    if source:
        headers.desk.disk.put("C:\\w\\x.c", source)
    headers.desk.disk.put("C:\\w\\z.h")
    assert [headers.make(), headers.use(*argv)] == ["miss", "miss"]
    assert headers.refused() == {"pch": 1}


def test_warnings_and_names_of_outputs_may_differ(headers: Headers) -> None:
    headers.make()
    others, counts = ("/W4", "-Wextra", "/wd4100", "/Fdx.pdb"), "/FS"
    assert [headers.use(*USE, counts), headers.use(*USE, counts)] == ["miss", "miss"]
    assert [headers.use(*USE, *others), headers.use(*USE, *others)] == ["miss", "hit"]


def test_a_second_header_of_the_name_refuses_the_result(headers: Headers) -> None:
    headers.make()
    headers.desk.disk.put("C:\\w\\h.h", b"another")
    assert headers.use() == "miss"
    assert set(headers.refused()) <= {"pch", "pch-stale"}
    assert headers.make(files=("h.h",)) == "miss"
    assert headers.refused()["pch"] >= 1


def test_a_header_that_appears_in_an_earlier_directory_refuses_the_users(headers: Headers) -> None:
    assert [headers.make(), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    headers.desk.disk.put("C:\\w\\in.h", b"earlier")
    assert headers.use() == "miss"
    assert headers.refused() == {"pch-stale": 1}


def test_a_forced_header_comes_first(headers: Headers) -> None:
    headers.desk.disk.put("C:\\w\\pch.c", b"/* generated */\n")
    headers.desk.disk.put("C:\\w\\x.c", b"int f(void) { return X; }\n")
    forced = "/FIh.h"
    assert headers.make(forced, *MAKE) == "miss"
    assert [headers.use(forced, *USE), headers.use(forced, *USE)] == ["miss", "hit"]
    assert headers.make(forced, *MAKE) == "hit"


@pytest.mark.parametrize(
    "argv",
    [
        ("/Ych.h", "/Yuh.h", "/Fpp.pch"),
        ("/Yc", "/Fpp.pch"),
        ("/Yuh.h",),
        ("/Yuh.h", "/Fpdir\\"),
        ("/Yuh.h", "/Fpp"),
        ("/Yuh.h", "/Fp:p.pch"),
        ("/Y-", "/Yuh.h", "/Fpp.pch"),
        ("/Yuh.h", "/Fpp.pch", "/Ylsym"),
    ],
)
def test_other_forms_are_left_to_the_compiler(argv: tuple[str, ...]) -> None:
    assert read_compile(machine(), request(*FLAGS, *argv, "x.c")) == Bypass("pch")  # type: ignore[arg-type]  # a word


def test_only_the_flag_about_times_goes_to_the_front_end() -> None:
    disk = machine()
    assert isinstance(read_compile(disk, request(*FLAGS, *NO_TIMES, "x.c")), WindowsCompile)
    found = read_compile(disk, request(*FLAGS, "-Xclang", "-emit-pch", "x.c"))
    assert found == Bypass("pass-through")  # type: ignore[arg-type]  # a word
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        disk.put(f"C:\\LLVM\\bin\\{name}")
    # MSBuild names the file always.
    asked = request(*FLAGS, "/Fpdir\\", "x.c", program="cl.exe")
    assert isinstance(read_compile(disk, asked), WindowsCompile)


def test_cl_makes_each_one_itself_and_its_users_are_cached(headers: Headers) -> None:
    desk = headers.desk
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        desk.disk.put(f"C:\\LLVM\\bin\\{name}", b"program", LONG_AGO)
    desk.program = "cl.exe"
    make = tuple(word for word in MAKE if word not in NO_TIMES)
    assert [headers.make(*make), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    assert [headers.make(*make), headers.use()] == ["miss", "hit"]
    assert headers.refused() == {"pch-of-cl": 2}
    # Each run of cl may write other bytes: those are another input of its users.
    desk.disk.put("C:\\w\\inc\\in.h", b"#define Y 5\n")
    assert headers.use() == "miss"
    assert headers.refused()["pch-stale"] == 1
    assert [headers.make(*make), headers.use(), headers.use()] == ["miss", "miss", "hit"]
    desk.disk.put(PCH, b"made elsewhere", at=LONG_AGO)
    assert headers.use() == "miss"
    assert headers.refused()["pch"] == 1
    assert headers.run((*FLAGS, "/Yu", "/Fpp.pch", "x.c"), {}, ()) == "pch"


def test_with_a_setting_those_of_cl_are_put_back(tmp_path: Path) -> None:
    make = tuple(word for word in MAKE if word not in NO_TIMES)
    outcomes = []
    for restores in (True, False, True):
        settings = Settings(cache=CacheSettings(restore_cl_pch=restores))
        headers = Headers(Desk(tmp_path, settings))
        desk, before = headers.desk, headers.refused()["pch-of-cl"]
        for name in ("cl.exe", "c1xx.dll", "c2.dll"):
            desk.disk.put(f"C:\\LLVM\\bin\\{name}", b"program", LONG_AGO)
        desk.program = "cl.exe"
        outcomes.append([headers.make(*make), headers.make(*make), headers.use(), headers.use()])
        assert desk.disk.files[PCH] == desk.disk.files["C:\\w\\inc\\h.h"] + b"#define Y 4\n"
        # Another text of a header is another one.
        desk.disk.put("C:\\w\\inc\\in.h", b"#define Y 5\n")
        outcomes.append([headers.make(*make)])
        assert headers.refused()["pch-of-cl"] - before == (0 if restores else 3)
        desk.counters.close()
        desk.cache.end_kept_hits()
    first, second, third = outcomes[0::2]
    assert first == ["miss", "hit", "miss", "hit"]
    # What is stored is not put back once the setting is off, and its users still hit.
    assert second == ["miss", "miss", "hit", "hit"]
    assert third == ["hit", "hit", "hit", "hit"]
    assert outcomes[1::2] == [["miss"], ["miss"], ["hit"]]


def test_a_record_that_is_gone_keeps_the_stored_header_away(headers: Headers) -> None:
    headers.make()
    store = headers.desk.store
    kept = store.get

    def get(key: bytes) -> bytes | None:
        data = kept(key)
        return None if data is not None and b"windows-precompiled" in data else data

    store.get = get  # type: ignore[method-assign]  # one entry was evicted
    assert headers.make() == "miss"
    store.get = kept  # type: ignore[method-assign]  # as it was
    assert headers.make() == "hit"
