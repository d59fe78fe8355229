"""A command with several sources: each is one compile, and what is printed stays the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpcc.cache.base.api import Done, Exec, Run, RunReport
from hpcc.cache.key.marker import Marker
from hpcc.compilers.msvc.several import sources_in, split_names
from hpcc.core import parse_windows_path

from .conftest import LONG_AGO, NOTES, Desk, request

FLAGS = ("/nologo", "/c", "/Iinc")
ALL = (*FLAGS, "a.c", "b.c", "c.c")
GENERATING = b"Code wird generiert...\r\n"


class Several(Desk):
    """Three sources, of which two read a header. The compiler prints what the test says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.put("a.c", b'#include "h.h"\n')
        self.put("b.c", b"int b;\n")
        self.put("c.c", b'#include "h.h"\nint c;\n')
        self.put("inc\\h.h", b"#define X 3\n")
        for name in ("cl.exe", "c1xx.dll", "c2.dll"):
            self.disk.put(f"C:\\LLVM\\bin\\{name}", b"program", LONG_AGO)
        self.out, self.err, self.exit_code = b"", b"", 0
        self.ran: list[list[str]] = []
        self.shown = b""

    def put(self, name: str, data: bytes) -> None:
        self.disk.put(f"C:\\w\\{name}", data, LONG_AGO)

    def objects(self) -> dict[str, bytes]:
        files = self.disk.files
        return {n[5:]: d for n, d in sorted(files.items()) if n.endswith(".obj")}

    def clear(self) -> None:
        for name in self.objects():
            del self.disk.files[f"C:\\w\\{name}"]

    def build(self, *argv: str, env: str = "") -> str:
        """Run one command; `ran` gets the sources that the compiler was started with."""
        asked = request(*(argv or ALL), program=self.program, CL=env)
        found = self.cache.begin(asked, lambda: False)
        if isinstance(found, Exec):
            return found.reason
        if isinstance(found, Done):
            self.shown = found.stdout + found.stderr
            return "hit"
        assert isinstance(found, Run)
        sources = [a.decode() for a in found.argv if a.endswith(b".c")]
        self.ran.append(sources)
        header = self.disk.read("C:\\w\\inc\\h.h", 99) or b""
        for name in () if self.exit_code else sources:
            text = self.disk.read(f"C:\\w\\{name}", 99) or b""
            made = b"object of " + text + (header if b"include" in text else b"")
            self.disk.put(f"C:\\w\\{name[:-2]}.obj", made, at=time.time_ns())
        notes = NOTES + b".\\inc/h.h\r\n" if {"a.c", "c.c"} & {*sources} else b""
        out = self.printed(sources, notes)
        ended = self.cache.finish(found, RunReport(self.exit_code, 0, out, self.err, False))
        self.shown = ended.stdout + ended.stderr
        return "miss"

    def printed(self, sources: Sequence[str], notes: bytes) -> bytes:
        if self.program != "cl.exe":
            return notes + self.out
        names = b"".join(name.encode() + b"\r\n" + notes for name in sources)
        return names + self.out + (GENERATING if len(sources) > 1 else b"")

    def counted(self) -> dict[str, int]:
        self.cache.flush()
        kept = ("hit.local", "miss.local", "miss.failed", "bypass.", "uncacheable.")
        return {n: c for n, c in self.counters.snapshot().items() if n.startswith(kept)}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Several]:
    made = Several(tmp_path)
    yield made
    made.counters.close()


def test_each_source_is_stored_and_all_are_put_back(desk: Several) -> None:
    assert desk.build() == "miss"
    made = desk.objects()
    assert len(made) == 3
    desk.clear()
    assert desk.build() == "hit"
    assert desk.objects() == made
    desk.clear()
    assert [desk.build(*FLAGS, name) for name in ("c.c", "a.c", "b.c")] == ["hit"] * 3
    assert desk.objects() == made
    assert desk.counted() == {"miss.local": 3, "hit.local": 6}


def test_after_an_edit_only_that_source_is_compiled(desk: Several) -> None:
    desk.build()
    desk.put("b.c", b"int bb;\n")
    assert desk.build() == "miss"
    assert desk.ran[-1] == ["b.c"]
    assert desk.objects()["b.obj"] == b"object of int bb;\n"
    assert desk.build() == "hit"
    # Alone it was stored with its own files: the header of the others does not concern it.
    desk.put("inc\\h.h", b"#define X 4\n")
    assert desk.build() == "miss"
    assert desk.ran[-1] == ["a.c", "c.c"]
    assert desk.objects()["a.obj"].endswith(b"#define X 4\n")
    assert desk.build() == "hit"


def test_an_edit_of_the_header_is_a_miss_of_all_that_were_compiled_together(desk: Several) -> None:
    desk.build()
    desk.put("inc\\h.h", b"#define X 4\n")
    assert desk.build() == "miss"
    assert desk.ran == [["a.c", "b.c", "c.c"]] * 2


def test_behind_a_source_without_a_result_only_what_is_in_place_stays(desk: Several) -> None:
    desk.build()
    desk.put("a.c", b"int aa;\n")
    del desk.disk.files["C:\\w\\b.obj"]
    assert desk.build() == "miss"
    assert desk.ran[-1] == ["a.c", "b.c"]  # c.obj is there already


@pytest.mark.parametrize("stream", ["out", "err"])
def test_messages_that_belong_to_an_unknown_source_are_not_stored(
    desk: Several, stream: str
) -> None:
    setattr(desk, stream, b"a.c(1): warning: odd\r\n")
    assert [desk.build(), desk.build()] == ["miss", "miss"]
    assert desk.shown == b"a.c(1): warning: odd\r\n"
    assert desk.counted() == {"miss.local": 6, "uncacheable.mixed-messages": 6}


def test_stored_messages_are_shown_if_nothing_runs_beside_them(desk: Several) -> None:
    for name, text in (("a.c", b"of a\r\n"), ("b.c", b""), ("c.c", b"of c\r\n")):
        desk.err = text
        assert desk.build(*FLAGS, name) == "miss"
    assert desk.build() == "hit"
    assert desk.shown == b"of a\r\nof c\r\n"
    desk.err = b""
    desk.put("b.c", b"int bb;\n")
    assert desk.build() == "miss"
    assert desk.ran[-1] == ["a.c", "b.c", "c.c"]


def test_a_failed_command_stores_nothing(desk: Several) -> None:
    desk.exit_code = 2
    assert desk.build() == "miss"
    assert desk.counted() == {"miss.local": 3, "miss.failed": 3}
    desk.exit_code = 0
    assert desk.build() == "miss"


def test_an_object_that_is_read_leaves_the_command_to_the_compiler(desk: Several) -> None:
    desk.build()
    desk.clear()
    desk.put("c.c", b'#if __has_include("a.obj")\n#endif\n')
    assert desk.build(*FLAGS, "c.c") == "miss"
    assert desk.build() == "multiple-sources"


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        ((*FLAGS, "/Foone.obj", "a.c", "b.c"), ""),
        ((*FLAGS, "/Tca.c", "b.c"), ""),
        ((*FLAGS, "a.c", "sub\\a.c"), ""),
        ((*FLAGS, "a.c", "missing.c"), ""),
        ((*FLAGS, "a.c", "b.cpp"), ""),
        ((*FLAGS, "/Z7", "a.c", "b.c"), ""),
        ((*FLAGS, "/Yuh.h", "/Fpp.pch", "a.c", "b.c"), ""),
        ((*FLAGS, "a.c", "@more.rsp"), ""),
        ((*FLAGS, "a.c", "b.c"), "/DX"),
        ((*FLAGS, "a.c", "b.c", "a.c"), ""),
    ],
)
def test_what_does_not_stand_alone_is_left_to_the_compiler(
    desk: Several, argv: tuple[str, ...], env: str
) -> None:
    desk.put("sub\\a.c", b"")
    desk.put("b.cpp", b"")
    desk.put("more.rsp", b"b.c")
    assert desk.build(*argv, env=env) == "multiple-sources"
    assert desk.objects() == {}


def test_the_names_that_cl_prints_are_shown_again(desk: Several) -> None:
    desk.program = "cl.exe"
    assert desk.build() == "miss"
    assert desk.shown == b"a.c\r\nb.c\r\nc.c\r\n" + GENERATING
    assert desk.build() == "hit"
    assert desk.shown == b"a.c\r\nb.c\r\nc.c\r\n"
    # Names of sources that are put in place would be missing between the others.
    desk.put("b.c", b"int bb;\n")
    assert desk.build() == "miss"
    assert desk.ran[-1] == ["a.c", "b.c", "c.c"]
    desk.out = b"a.c(1) : warning C4700: odd\r\n"
    desk.put("b.c", b"int bbb;\n")
    assert [desk.build(), desk.build()] == ["miss", "miss"]
    assert desk.counted()["uncacheable.mixed-messages"] == 6


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        (b"a.c\r\nb.c\r\n", True),
        (b"a.c\r\nb.c\r\nGenerating Code...\r\n", True),
        (b"a.c\r\nb.c\r\n\x83R\x81[\x83h...\r\n", True),
        (b"a.c\r\nb.c\r\nc1 : fatal error C1083...\r\n", False),
        (b"a.c\r\nb.c\r\nb.c(3) : warning...\r\n", False),
        (b"a.c\r\nb.c\r\nsome message\r\n", False),
        (b"a.c\r\nb.c\r\nGenerating Code...\r\nmore...\r\n", False),
        (b"b.c\r\na.c\r\n", False),
        (b"a.c\r\n", False),
        (b"", False),
    ],
)
def test_only_names_and_one_line_behind_them_are_known(text: bytes, is_known: bool) -> None:
    found = split_names(text, [b"sub\\a.c", b"b.c"])
    assert (found is not None) is is_known
    if found is not None:
        assert b"".join(found[0]) + found[1] == text


def test_places_are_those_of_the_sources() -> None:
    found = sources_in((b"/c", b"/I", b"x.c", b"a.c", b"--", b"/src/b.c", b"--"), is_clang=True)
    assert found is not None
    assert found.places == (3, 5, 6)
    assert found.only({1}) == (b"/c", b"/I", b"x.c", b"--", b"/src/b.c")
    for words in ((b"/c", b"a.c"), (b"/c", b"/Tpa.c", b"b.c", b"c.c"), (b"/unknown:", b"a", b"b")):
        assert sources_in(words, is_clang=False) is None


@pytest.mark.parametrize("names", [("a.c", "out\\d.c"), ("out\\d.c", "a.c")])
def test_sources_that_get_other_flags_for_sharing_are_left_to_the_compiler(
    desk: Several, names: tuple[str, str]
) -> None:
    marker = Marker(b"", excluded=(b"out",))
    desk.markers[b"C:\\w"] = parse_windows_path("C:\\w"), marker
    desk.put("out\\d.c", b"int d;\n")
    desk.disk.directories |= {"C:\\w"}
    assert desk.build(*FLAGS, *names) == "multiple-sources"
    assert desk.build(*FLAGS, "a.c", "b.c") == "miss"
    desk.clear()
    assert desk.build(*FLAGS, "a.c", "b.c") == "hit"


def test_lists_that_the_user_asks_for_belong_to_an_unknown_source(desk: Several) -> None:
    argv = (*ALL, "/showIncludes")
    assert [desk.build(*argv), desk.build(*argv)] == ["miss", "miss"]
    assert desk.counted() == {"miss.local": 6, "uncacheable.mixed-messages": 6}
    # Each alone has its own list, and together they are what the command prints.
    assert [desk.build(*FLAGS, name, "/showIncludes") for name in ("a.c", "b.c", "c.c")] == [
        "miss",
        "miss",
        "miss",
    ]
    assert desk.build(*argv) == "hit"
    assert desk.shown == (NOTES + b".\\inc/h.h\r\n") * 2
