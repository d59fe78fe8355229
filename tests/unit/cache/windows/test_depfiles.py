"""Depfiles of clang-cl, as CMake asks for them: outputs, lists of headers, texts for checkouts."""

from __future__ import annotations

import time

import pytest

from hpcc.cache.base.api import RunReport
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.results.results import Result, Results
from hpcc.cache.windows.depfiles import marked_depfile, names_in, spelled_depfile
from hpcc.compilers.invocation.depfile import escape_name
from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.core import parse_windows_path

from .conftest import ARGV, LONG_AGO, Desk, request
from .test_sharing import CHECKOUTS, Checkouts, two

__all__ = ["two"]

CMAKE = ("/clang:-MD", "/clang:-MTout\\x.obj", "/clang:-MFx.d", *ARGV)
# By the rule of Clang's DependencyFile.cpp, with the ends of lines that Windows has.
TEXT = b"out\\x.obj: C:\\w\\x.c C:\\w\\inc\\h.h\r\n"


@pytest.fixture
def made(desk: Desk) -> Desk:
    desk.written = {"C:\\w\\x.d": TEXT}
    return desk


def counted(desk: Desk, word: str) -> list[str]:
    return [name for name in desk.counters.snapshot() if name.startswith(word)]


def test_a_depfile_is_put_back_with_the_object(made: Desk) -> None:
    assert made.compile(*CMAKE) == "miss"
    for name in ("x.obj", "x.d"):
        del made.disk.files[f"C:\\w\\{name}"]
    assert made.compile(*CMAKE) == "hit"
    assert made.disk.files["C:\\w\\x.d"] == TEXT
    assert made.disk.files["C:\\w\\x.obj"] == b"object of #define X 3\n"
    # Ninja removes it once it has read it, so nothing may depend on an old one.
    made.disk.put("C:\\w\\x.d", b"older and longer than the depfile of this compile")
    assert made.compile(*CMAKE) == "hit"
    assert made.disk.files["C:\\w\\x.d"] == TEXT


def test_every_file_on_it_is_an_input_and_the_command_stays_as_it_is(made: Desk) -> None:
    run = made.cache.begin(request(*CMAKE), lambda: False)
    assert run.argv[1:] == tuple(word.encode() for word in CMAKE)  # type: ignore[union-attr]  # a Run
    assert not run.filter_headers  # type: ignore[union-attr]  # as above
    made.cache.abandon(run)  # type: ignore[arg-type]  # as above
    assert made.compile(*CMAKE, err=b"x.c(1): w\r\n") == "miss"
    made.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n")
    assert made.compile(*CMAKE) == "miss"
    assert made.compile(*CMAKE) == "hit"
    # A header with the name in a directory that comes earlier.
    made.disk.put("C:\\w\\h.h", b"")
    assert made.compile(*CMAKE) == "miss"


def test_other_names_and_targets_are_other_results(made: Desk) -> None:
    assert made.compile(*CMAKE) == "miss"
    made.written = {"C:\\w\\y.d": b"y: C:\\w\\x.c C:\\w\\inc\\h.h\r\n"}
    assert made.compile("/clang:-MD", "/clang:-MTy", "/clang:-MFy.d", *ARGV) == "miss"
    assert made.compile(*ARGV) == "miss"
    assert made.compile(*ARGV) == "hit"


def test_debug_information_needs_no_further_list(made: Desk) -> None:
    for flag in ("/Zi", "/Z7"):
        assert made.compile(flag, *ARGV) == "show-includes"
        assert [made.compile(flag, *CMAKE) for _ in range(2)] == ["miss", "hit"]


def test_a_depfile_without_system_headers_is_no_list(made: Desk) -> None:
    line = ("/clang:-MMD", "/clang:-MFx.d", *ARGV)
    run = made.cache.begin(request(*line), lambda: False)
    assert b"-showIncludes" in run.argv  # type: ignore[union-attr]  # a Run
    made.cache.abandon(run)  # type: ignore[arg-type]  # as above
    assert [made.compile(*line) for _ in range(2)] == ["miss", "hit"]
    assert made.compile("/Z7", *line) == "show-includes"
    # With the user's own list that one counts.
    assert made.compile("/showIncludes", "/Z7", *line) == "miss"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "uncacheable.depfile"),
        (b"no rule\r\n", "uncacheable.depfile"),
        (b"x: C:\\w\\\xff.h\r\n", "uncacheable.depfile"),
        (b"x: C:\\w\\x.c C:\\w\\gone.h\r\n", "uncacheable.input-vanished"),
        (b"x: \\\\server\\share\\h.h\r\n", "uncacheable.unclear-name"),
    ],
)
def test_a_depfile_that_does_not_name_files_keeps_the_result_out(
    made: Desk, data: bytes, reason: str
) -> None:
    made.written = {"C:\\w\\x.d": data}
    assert [made.compile(*CMAKE) for _ in range(2)] == ["miss", "miss"]
    assert counted(made, "uncacheable.") == [reason]


def test_an_old_depfile_is_not_that_of_the_compile(made: Desk) -> None:
    made.written = {}
    made.disk.put("C:\\w\\x.d", TEXT, at=LONG_AGO)
    assert [made.compile(*CMAKE) for _ in range(2)] == ["miss", "miss"]
    assert counted(made, "uncacheable.") == ["uncacheable.output-unreadable"]


@pytest.mark.parametrize("name", ["x.c", "x.obj", "X.OBJ", "inc"])
def test_a_depfile_in_the_place_of_another_file_is_left_to_the_compiler(
    made: Desk, name: str
) -> None:
    assert made.compile("/clang:-MD", f"/clang:-MF{name}", *ARGV) == "odd-output"


def test_a_header_is_not_overwritten_by_a_depfile(made: Desk) -> None:
    assert made.compile(*CMAKE) == "miss"
    line = ("/clang:-MD", "/clang:-MTout\\x.obj", "/clang:-MFinc\\h.h", *ARGV)
    made.written = {"C:\\w\\inc\\h.h": TEXT}
    assert made.compile(*line) == "miss"
    assert counted(made, "uncacheable.") == ["uncacheable.modified-during-compile"]


def test_sources_of_one_command_do_not_share_a_depfile(made: Desk) -> None:
    made.disk.put("C:\\w\\y.c", b"int y;\n")
    assert made.compile(*CMAKE, "y.c") == "multiple-sources"


def test_a_hit_with_a_depfile_is_kept_for_the_launcher(made: Desk) -> None:
    made.frame = b"the bytes of a request"
    assert [made.compile(*CMAKE) for _ in range(3)] == ["miss", "hit", "kept"]
    # Ninja has removed the depfile; an older one is written over.
    for older in (None, b"of another compile"):
        made.disk.files.pop("C:\\w\\x.d", None)
        if older is not None:
            made.disk.put("C:\\w\\x.d", older)
        assert made.compile(*CMAKE) == "kept"
        assert made.disk.files["C:\\w\\x.d"] == TEXT
        assert made.disk.files["C:\\w\\x.obj"] == b"object of #define X 3\n"
    made.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n")
    assert [made.compile(*CMAKE) for _ in range(3)] == ["miss", "hit", "kept"]


@pytest.mark.parametrize("is_put", [True, False])
def test_a_depfile_that_a_launcher_wrote_is_not_that_of_a_running_compile(
    made: Desk, is_put: bool
) -> None:
    made.frame = b"the bytes of a request"
    assert [made.compile(*CMAKE) for _ in range(2)] == ["miss", "hit"]
    # Another command with the same depfile runs while the launcher answers the first one.
    other = request("/DX", *CMAKE[:3], *(w for w in ARGV if w != "x.c"), "/Foy.obj", "x.c")
    run = made.cache.begin(other, lambda: False)
    # Without its object the hit is withdrawn, but its depfile is there.
    del made.disk.files["C:\\w\\x.d"]
    assert (made.launcher.answer(made.frame, is_put=is_put) is None) is not is_put
    assert made.disk.files["C:\\w\\x.d"] == TEXT
    made.disk.put("C:\\w\\y.obj", b"another object", at=time.time_ns())
    made.disk.put("C:\\w\\x.d", TEXT, at=time.time_ns())
    made.cache.finish(run, RunReport(0, 0, b"", b"", False))  # type: ignore[arg-type]  # a Run
    assert counted(made, "uncacheable.") == ["uncacheable.modified-during-compile"]


def text_for(root: str) -> bytes:
    """Return what clang writes in a checkout: it breaks lines by the lengths of the names."""
    names = [f"{root}\\x.c", f"{root}\\inc\\h.h", "C:\\VC\\include\\v.h"]
    line, column = b"out\\x.obj:", len(b"out\\x.obj:")
    for name in names:
        size = len(name.encode())
        if column + size + 3 > 75:
            line, column = line + b" \\\n ", 2
        line, column = line + b" " + escape_name(name.encode()), column + size + 1
    return line.replace(b"\n", b"\r\n") + b"\r\n"


def test_another_checkout_gets_a_depfile_with_its_own_names(two: Checkouts) -> None:
    for root in CHECKOUTS:
        two.written = {f"{root}\\x.d": text_for(root)}
        found = two.compile(*CMAKE, cwd=root)
        assert found == ("miss" if root == CHECKOUTS[0] else "hit")
        assert two.disk.files[f"{root}\\x.d"] == text_for(root)
    counts = two.counters.snapshot()
    assert (counts["hit.shared"], two.private()) == (1, {})


@pytest.mark.parametrize("stored", [b"", b"no rule", b"x:  C:\\w\\x.c\n", b"x: \0\n\n\\"])
def test_a_stored_depfile_that_nobody_made_is_a_miss(
    two: Checkouts, stored: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.written = {f"{CHECKOUTS[0]}\\x.d": text_for(CHECKOUTS[0])}
    assert two.compile(*CMAKE, cwd=CHECKOUTS[0]) == "miss"
    plain = Results.result

    def result(self: Results, key: bytes) -> Result | None:
        found = plain(self, key)
        return found and found._replace(depfile=stored)

    monkeypatch.setattr(Results, "result", result)
    two.written = {f"{CHECKOUTS[1]}\\x.d": text_for(CHECKOUTS[1])}
    assert two.compile(*CMAKE, cwd=CHECKOUTS[1]) == "miss"


@pytest.mark.parametrize("flag", ["/clang:-MT", "/clang:-MQ"])
def test_a_target_with_blanks_as_they_are_is_private(two: Checkouts, flag: str) -> None:
    """Clang writes the name behind `-MT` as it is: for hpcc, as for make, that is two targets."""
    line = ("/clang:-MD", f"{flag}C:\\w\\a file.obj", "/clang:-MFx.d", *ARGV)
    is_quoted = flag.endswith("Q")
    target = b"C:\\w\\a\\ file.obj" if is_quoted else b"C:\\w\\a file.obj"
    two.written = {"C:\\w\\x.d": target + b": C:\\w\\x.c C:\\w\\inc\\h.h\r\n"}
    assert two.compile(*line, cwd="C:\\w") == "miss"
    assert two.private() == ({} if is_quoted else {"private.flags": 1})


def test_a_depfile_that_names_the_checkout_oddly_is_private(two: Checkouts) -> None:
    two.written = {"C:\\w\\x.d": b"c:\\W\\x.obj: C:\\w\\x.c C:\\w\\inc\\h.h\r\n"}
    assert two.compile(*CMAKE, cwd="C:\\w") == "miss"
    assert two.private() == {"private.text": 1}


@pytest.mark.parametrize("style", ["\\", "/"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "root", ["C:\\w", "D:\\with a space\\and more of it", "E:\\" + "long" * 30]
)
def test_what_is_marked_is_spelled_again(root: str, end: str, style: str) -> None:
    def shown(text: bytes) -> bytes:
        """Clang writes names with one of the slashes; an escaped blank keeps its backslash."""
        other = text.replace(b"\\ ", b"\1").replace(b"\\\r", b"\2")
        other = other.replace(b"\\", style.encode())
        return other.replace(b"\1", b"\\ ").replace(b"\2", b"\\\r").replace(b"\r\n", end.encode())

    text = shown(text_for(root))
    marked = marked_depfile(text, parse_windows_path(root))
    assert marked is not None
    for spelling in (root, root.replace("\\", "/")):
        assert spelling.encode() not in marked
        assert escape_name(spelling.encode()) not in marked
    assert spelled_depfile(marked, parse_windows_path(root)) == text
    other = "F:\\other one"
    spelled = spelled_depfile(marked, parse_windows_path(other))
    assert spelled == shown(text_for(other))
    expected = f"{other}\\x.c", f"{other}\\inc\\h.h", "C:\\VC\\include\\v.h"
    assert names_in(spelled) == tuple(name.replace("\\", style) for name in expected)


@pytest.mark.parametrize(
    "text",
    [
        b"x: C:\\W\\x.c\n",  # other capitals
        b"x: D:\\C:\\w\\x.c\n",  # inside of a name
        b"x:  C:\\w\\x.c\n",  # a layout that clang does not write
        b"x: C:\\w\\x.c",
        b"x: \x00hpcc-root\n",
    ],
)
def test_a_text_that_cannot_be_marked(text: bytes) -> None:
    text = text.replace(b"\x00hpcc-root", ROOT_MARK)
    assert marked_depfile(text, parse_windows_path("C:\\w")) is None


def test_a_root_with_a_blank_that_is_not_escaped_is_found() -> None:
    text = b"C:\\a root\\x.obj: C:\\a\\ root\\x.c\n"
    assert marked_depfile(text, parse_windows_path("C:\\a root")) is None


def test_names_are_those_of_the_user() -> None:
    escaped = b"x.obj: C:\\Program\\ Files\\a\\#b.h J\xc3\xbc\\c$$.h\r\n\r\nC:\\p.h:\r\n"
    assert names_in(escaped) == ("C:\\Program Files\\a#b.h", "J\u00fc\\c$.h")
    with pytest.raises(UncacheableError):
        names_in(b"x: a" + b" b" * 200_000)
