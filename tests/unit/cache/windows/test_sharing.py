"""Results of clang-cl for every checkout: what is shared, what is private and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpcc.cache.key.marker import Marker
from hpcc.cache.windows.border import leaves
from hpcc.cache.windows.sharing import WindowsShare, names
from hpcc.core import WindowsPath, parse_windows_path

from .conftest import ARGV, Desk, request

SOURCE = b'#include "h.h"\nint f(void) { return X; }\n'
CHECKOUTS = "C:\\w", "D:\\J\u00fcrgen\\v"


class Checkouts(Desk):
    """Two checkouts with markers, and a compiler that writes what the test says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        for root in CHECKOUTS:
            path = parse_windows_path(root)
            for below in ("", "\\sub"):
                self.markers[f"{root}{below}".encode()] = path, Marker(b"", excluded=(b"out",))
            self.disk.directories |= {root, f"{root}\\sub", f"{root}\\early"}
            self.put("x.c", SOURCE, root)
            self.put("inc\\h.h", b"#define X 3\n", root)

    def put(self, name: str, data: bytes, root: str = "") -> None:
        for place in (root,) if root else CHECKOUTS:
            self.disk.put(f"{place}\\{name}", data)

    def private(self) -> dict[str, int]:
        counted = self.counters.snapshot()
        return {n: c for n, c in counted.items() if n.startswith("private.")}


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Checkouts]:
    made = Checkouts(tmp_path)
    yield made
    made.counters.close()


def both(two: Checkouts, *argv: str, **more: bytes) -> list[str]:
    return [two.compile(*argv, cwd=root, **more) for root in CHECKOUTS]


def test_the_second_checkout_hits(two: Checkouts) -> None:
    assert both(two) == ["miss", "hit"]
    assert two.disk.files[f"{CHECKOUTS[1]}\\x.obj"] == b"object of #define X 3\n"
    counted = two.counters.snapshot()
    assert (counted["hit.shared"], counted["hit.local"]) == (1, 1)
    # Another content of one checkout is its own matter.
    two.put("inc\\h.h", b"#define X 4\n", CHECKOUTS[1])
    assert both(two) == ["hit", "miss"]
    # A header that appears in an earlier directory of one of them, too.
    two.put("early\\H.H", b"", CHECKOUTS[0])
    assert both(two, "/Iearly", *ARGV) == ["miss", "miss"]
    assert two.private() == {}


def test_both_spellings_of_the_root_are_shared(two: Checkouts) -> None:
    for style in ("\\", "/"):
        found = []
        for root in CHECKOUTS:
            base = root.replace("\\", style)
            argv = ("/c", f"-I{base}{style}inc", f"/Fo{base}{style}x.obj", f"{base}/x.c")
            found.append(two.compile(*argv, cwd=root, err=f"{base}{style}x.c(1): w\r\n".encode()))
        assert found == ["miss", "hit"]
    assert two.private() == {}


def test_the_compiler_gets_maps_in_a_checkout_only(two: Checkouts) -> None:
    first = two.cache.begin(request("/c", "/Iinc", "x.c", cwd="C:\\w"), lambda: False)
    assert b"-clang:-ffile-prefix-map=C:\\w=." in first.argv  # type: ignore[union-attr]  # a Run
    two.cache.abandon(first)  # type: ignore[arg-type]  # as above
    two.markers.clear()
    second = two.cache.begin(request("/c", "/Iinc", "x.c", cwd="C:\\w"), lambda: False)
    assert not any(b"prefix-map" in word for word in second.argv)  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("/DP=C:\\w\\x", "/DP=D:\\J\u00fcrgen\\v"), "root-in-argument"),
        (("-IC:\\W\\inc", "-Id:/J\u00fcrgen/v/inc"), "root-in-argument"),
        (("-IC:\\w2", "-ID:\\J\u00fcrgen\\v2"), "root-in-argument"),
        (("-I..\\other",) * 2, "border"),
        (("-I..\\w\\inc",) * 2, "border"),
        (("-IC:\\w\\..\\w\\inc", "-ID:\\J\u00fcrgen\\v\\..\\w\\inc"), "border"),
        (("/FI..\\w\\inc\\h.h",) * 2, "border"),
        (("-Xclang",) * 2, ""),
        (("/RTC1",) * 2, "flags"),
    ],
)
def test_arguments_that_keep_a_result_private(
    two: Checkouts, argv: tuple[str, str], reason: str
) -> None:
    both_argv = [(word, *ARGV) for word in argv]
    found = [two.compile(*a, cwd=c) for a, c in zip(both_argv, CHECKOUTS, strict=True)]
    if not reason:
        assert found == ["pass-through", "pass-through"]
        return
    assert found == ["miss", "miss"]
    assert two.private() == {f"private.{reason}": 2}
    assert two.compile(*both_argv[0], cwd=CHECKOUTS[0]) == "hit"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b'char *p = "c:/W/x";', "root-in-source"),
        (b'char *p = "C:\\\\w\\\\x";', "root-in-source"),
        (b'#include "../out.h"\n', "border"),
        (b'#if __has_include("..\\\\x.h")\n#endif\n', "border"),
        (b'#if __has_include("/w/x.h")\n#endif\n', "border"),
        (b"#define N <C:/\n#include N\n", ""),
    ],
)
def test_sources_that_keep_a_result_private(two: Checkouts, source: bytes, reason: str) -> None:
    two.put("x.c", SOURCE + source)
    for directory in ("C:", "D:\\J\u00fcrgen"):
        two.disk.directories.add(directory)
        two.disk.put(f"{directory}\\out.h", b"")
    found = both(two)
    if reason:
        assert (found, set(two.private())) == (["miss", "miss"], {f"private.{reason}"})


@pytest.mark.parametrize(
    ("argv", "source", "listed"),
    [
        (ARGV, b'#include "../w/other.h"\n', b"./../w/other.h"),
        (ARGV, b'#define N "other.h"\n#define H(x) <../w/x>\n#include H(N)\n', b"inc/../../w/other.h"),
        (("/c", "/Iinc", "..\\w\\x.c"), SOURCE, b""),
        (("/c", "/Iinc", "early\\..\\..\\w\\x.c"), SOURCE, b""),
    ],
)  # fmt: skip
def test_a_name_that_leaves_the_checkout_and_comes_back_is_not_shared(
    two: Checkouts, argv: tuple[str, ...], source: bytes, listed: bytes
) -> None:
    # In the second checkout it leads to a neighbour with other contents.
    two.put("x.c", source)
    two.put("other.h", b"#define X 3\n")
    two.disk.put("D:\\J\u00fcrgen\\w\\other.h", b"#define X 4\n")
    two.disk.put("D:\\J\u00fcrgen\\w\\x.c", b"int g;\n")
    two.listed = listed
    assert both(two, *argv) == ["miss", "miss"]
    assert set(two.private()) == {"private.border"}
    assert two.compile(*argv, cwd=CHECKOUTS[0]) == "hit"


@pytest.mark.parametrize(
    ("name", "is_out"),
    [
        ("..\\w\\x.h", True), ("sub/../../W/x.h", True), ("C:\\w\\a\\..\\..\\w\\x.h", True),
        ("c:/W/../x.h", True), ("sub\\..\\x.h", False), ("x..h", False), ("D:\\w\\..\\x.h", False),
        ("C:\\sdk\\..\\w\\x.h", False), ("..", True), ("..\\..\\..\\x.h", True),
    ],
)  # fmt: skip
def test_the_way_of_a_name_is_followed(name: str, is_out: bool) -> None:
    root = parse_windows_path("C:\\w")
    assert leaves(name, root, root) is is_out


def test_a_server_on_the_search_path_is_left_to_the_compilers_list(two: Checkouts) -> None:
    assert both(two, "-I\\\\server\\inc", *ARGV) == ["miss", "miss"]
    assert two.private() == {}
    assert two.counters.snapshot()["uncacheable.search-path"] == 2


def test_capitals_do_not_undo_an_exclusion(two: Checkouts) -> None:
    two.put("out\\x.c", SOURCE)
    two.put("out\\h.h", b"")
    both(two, "/c", "/Iinc", "OUT\\x.c")
    assert two.private() == {"private.excluded": 2}


def test_what_names_the_checkout_is_private(two: Checkouts) -> None:
    for at, word in enumerate((b"C:\\w\\x.c", b"c:/W/y", "C:\\w".encode("utf-16-le"))):
        argv = (*ARGV, f"/DN={at}")
        two.extra = word
        assert [two.compile(*argv, cwd=CHECKOUTS[0]) for _ in range(2)] == ["miss", "hit"]
        assert two.compile(*argv, cwd=CHECKOUTS[1]) == "miss"
    two.extra = b""
    assert two.private() == {"private.embeds-path": 3}
    assert both(two, *ARGV, "/DM", err=b"note: c:\\W\\x.c\r\n") == ["miss", "miss"]
    assert two.private()["private.text"] == 1


def test_a_hash_of_the_sources_path_is_private(two: Checkouts) -> None:
    two.extra = b".?AUOwn@?A0x703A46A3@@"
    assert both(two) == ["miss", "hit"]
    for root in CHECKOUTS:
        assert two.compile("/c", "/Iinc", f"{root}\\x.c", cwd=root) == "miss"
    assert two.private() == {"private.embeds-path": 2}


def test_a_message_names_the_own_checkout(two: Checkouts) -> None:
    for text in (r"{}\x.c(1): warning", '"{}/inc\\h.h"', "In file included from {}\\x.c:1:"):
        argv = (*ARGV, f"/DN={len(text)}")
        texts = [text.format(root).encode() for root in CHECKOUTS[:1]]
        if "/" in text:
            texts = [text.format(root.replace("\\", "/")).encode() for root in CHECKOUTS[:1]]
        assert two.compile(*argv, cwd=CHECKOUTS[0], err=texts[0]) == "miss"
        there = CHECKOUTS[1].replace("\\", "/") if "/" in text else CHECKOUTS[1]
        assert two.compile(*argv, cwd=CHECKOUTS[1], err=text.format(there).encode()) == "hit"


def test_what_the_marker_and_the_directory_say(
    two: Checkouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.put("out\\x.c", SOURCE)
    two.put("out\\h.h", b"")
    both(two, "/c", "/Iinc", "out\\x.c")
    assert two.private() == {"private.excluded": 2}
    two.compile(*ARGV, cwd="c:\\W")
    monkeypatch.setattr(two.disk, "real", lambda path: path.replace("\\inc", "\\else"))
    both(two, *ARGV, "/DL")
    assert two.private()["private.linked-directory"] == 2
    two.markers = {}
    two.compile(*ARGV, "/DK")
    assert len(two.private()) == 2


def test_maps_that_the_compiler_refuses_keep_it_private(two: Checkouts) -> None:
    two.refuses_maps = True
    assert both(two) == ["miss", "miss"]
    assert two.private() == {"private.maps-refused": 2}
    assert both(two) == ["hit", "hit"]


ROOT = WindowsPath("C", ("a", "J\u00fcrgen x", "v"))


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ("C:\\a\\J\u00fcrgen x\\v", True), ("c:/A\\j\u00dcrgen X/v", True),
        ("C:\\\\a\\\\J\u00fcrgen x\\\\v\\\\y", True), ("C:\\a\\Jrgen x\\v", False),
        ("D:\\a\\J\u00fcrgen x\\v", False), ("C:\\a", False),
    ],
)  # fmt: skip
def test_a_name_is_found_in_every_spelling(text: str, is_named: bool) -> None:
    for data in (text.encode(), b"\0x" + text.encode("utf-16-le"), text.encode("utf-16-le")):
        assert names(data, ROOT) is is_named


def spelled(share: WindowsShare, texts: Sequence[bytes]) -> list[bytes | None]:
    return [share.marked_text(text) for text in texts]


def test_texts_that_cannot_be_marked() -> None:
    share = WindowsShare(ROOT, b"", (ROOT,))
    root = str(ROOT).encode()
    assert (
        spelled(share, [b"x" + root, root + b"y", b"\0", root.lower(), root + root]) == [None] * 5
    )
    marked = share.marked_text(root + b"\\x.c " + root.replace(b"\\", b"/") + b"/y")
    assert marked == b"\0b\\x.c \0f/y"
    assert share.spelled_text(marked) == root + b"\\x.c " + root.replace(b"\\", b"/") + b"/y"
