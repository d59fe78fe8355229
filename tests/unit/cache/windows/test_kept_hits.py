"""Hits that the launcher answers by itself: when, and when not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.base.api import Run, RunReport
from hpcc.config.settings import CacheSettings, Settings

from .conftest import LONG_AGO, NOTES, Desk, request

FRAME = b"the request's bytes"


def kept(desk: Desk) -> None:
    """Compile until the launcher answers."""
    desk.frame = FRAME
    assert [desk.compile() for _ in range(4)] == ["miss", "hit", "kept", "kept"]


def counted(desk: Desk) -> dict[str, int]:
    desk.cache.flush()
    return {n: c for n, c in desk.counters.snapshot().items() if n.startswith(("hit.", "miss."))}


def test_the_second_hit_asks_no_daemon_and_is_counted_later(desk: Desk) -> None:
    kept(desk)
    assert len(desk.launcher.log) == 32
    assert counted(desk) == {"miss.local": 1, "hit.local": 3}
    assert desk.launcher.log == b""
    desk.disk.files.pop("C:\\w\\x.obj")
    assert desk.compile() == "kept"
    assert desk.disk.files["C:\\w\\x.obj"] == b"object of #define X 3\n"


CHANGES: dict[str, Callable[[Desk], object]] = {
    "source": lambda d: d.disk.put("C:\\w\\x.c", b'#include "h.h"\nint g;\n', LONG_AGO),
    "header": lambda d: d.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n", LONG_AGO),
    "header-gone": lambda d: d.disk.files.pop("C:\\w\\inc\\h.h"),
    "earlier-header": lambda d: d.disk.put("C:\\w\\H.h", b"", LONG_AGO),
    "compiler": lambda d: d.disk.put("C:\\LLVM\\bin\\clang-cl.exe", b"other", LONG_AGO + 1),
    "library": lambda d: d.disk.put("C:\\LLVM\\bin\\a.dll", b"program", LONG_AGO + 1),
    "new-library": lambda d: d.disk.put("C:\\LLVM\\bin\\b.dll", b"", LONG_AGO),
    "configuration": lambda d: d.disk.put("C:\\LLVM\\bin\\clang-cl.cfg", b"-DX", LONG_AGO),
    "starter": lambda d: d.disk.put("C:\\LLVM\\bin\\clang-cl.shim", b"", LONG_AGO),
    "imitated": lambda d: d.disk.put("C:\\VC\\bin\\Hostx64\\x64\\cl.exe", b"2", LONG_AGO + 1),
    "marker": lambda d: d.disk.put("C:\\w\\.hpcc", b"", LONG_AGO),
    "output-is-a-directory": lambda d: d.disk.put("C:\\w\\x.obj\\y", b""),
    "output-is-odd": lambda d: (d.disk.put("C:\\w\\x.obj"), d.disk.odd.add("C:\\w\\x.obj")),
    "second-name": lambda d: (d.disk.put("C:\\w\\x.obj"), d.disk.links.update({"C:\\w\\x.obj": 2})),
    "language": lambda d: setattr(d.disk, "languages", b"1252 437 1031"),
    "daemon": lambda d: d.cache.end_kept_hits(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_daemon_is_asked_after_any_change(desk: Desk, change: Callable[[Desk], object]) -> None:
    kept(desk)
    desk.disk.files.pop("C:\\w\\x.obj")
    change(desk)
    assert desk.launcher.answer(FRAME) is None


def test_another_request_is_not_answered(desk: Desk) -> None:
    kept(desk)
    assert desk.launcher.answer(FRAME + b"x") is None


def test_a_changed_header_is_compiled_and_kept_again(desk: Desk) -> None:
    kept(desk)
    desk.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n", LONG_AGO)
    assert [desk.compile() for _ in range(3)] == ["miss", "hit", "kept"]
    desk.disk.put("C:\\w\\inc\\h.h", b"#define X 3\n", LONG_AGO)
    assert [desk.compile() for _ in range(2)] == ["hit", "kept"]
    assert desk.disk.files["C:\\w\\x.obj"] == b"object of #define X 3\n"


def test_what_cannot_be_checked_is_not_kept(desk: Desk) -> None:
    desk.frame = FRAME
    marker = "C:\\w\\.hpcc"
    desk.disk.put(marker, b"", LONG_AGO)
    desk.disk.odd.add(marker)  # a link, of which a state would be that of its target
    assert [desk.compile() for _ in range(3)] == ["miss", "hit", "hit"]
    del desk.disk.files[marker]
    output = "C:\\w\\LONGNA~1.OBJ"
    argv = ("/nologo", "/c", "/Iinc", f"/Fo{output}", "x.c")
    assert [desk.compile(*argv, output=output) for _ in range(3)] == ["miss", "hit", "hit"]


# ---- below a marker ----

MARKER = "C:\\w\\.hpcc"
SHARED_CHANGES: dict[str, Callable[[Desk], object]] = {
    "no-marker": lambda d: d.disk.files.pop(MARKER),
    "other-marker": lambda d: d.disk.put(MARKER, b"[share]\n", LONG_AGO),
    "touched-marker": lambda d: d.disk.put(MARKER, b"", LONG_AGO + 1),
    "nearer-marker": lambda d: d.disk.put("C:\\w\\sub\\.hpcc", b"", LONG_AGO),
    "linked-root": lambda d: d.disk.reals.update({"C:\\w\\sub": "D:\\w\\sub"}),
    "linked-search-directory": lambda d: d.disk.reals.update({"C:\\w\\sub\\inc": "D:\\inc"}),
    "header": lambda d: d.disk.put("C:\\w\\sub\\inc\\h.h", b"#define X 4\n", LONG_AGO),
    "new-header": lambda d: d.disk.put("C:\\w\\sub\\h.h", b"", LONG_AGO),
    "source": lambda d: d.disk.put("C:\\w\\sub\\x.c", b"int g;\n", LONG_AGO),
    "compiler": lambda d: d.disk.put("C:\\LLVM\\bin\\a.dll", b"program", LONG_AGO + 1),
    "moved-compiler": lambda d: d.disk.reals.update(
        {"C:\\LLVM\\bin\\clang-cl.exe": "D:\\clang-cl.exe"}
    ),
}


def _checkout(desk: Desk, root: str) -> str:
    """Make a checkout with a marker, and return the directory of its compiles."""
    desk.disk.put(f"{root}\\.hpcc", b"", LONG_AGO)
    desk.disk.put(f"{root}\\sub\\x.c", b'#include "h.h"\nint f(void) { return X; }\n', LONG_AGO)
    desk.disk.put(f"{root}\\sub\\inc\\h.h", b"#define X 3\n", LONG_AGO)
    return f"{root}\\sub"


def test_shared_results_are_kept_in_each_checkout_and_counted_as_shared(desk: Desk) -> None:
    one, two = (_checkout(desk, root) for root in ("C:\\w", "D:\\v"))
    desk.frame = FRAME
    assert [desk.compile(cwd=one) for _ in range(3)] == ["miss", "hit", "kept"]
    desk.frame = FRAME + b" of two"
    assert [desk.compile(cwd=two) for _ in range(3)] == ["hit", "kept", "kept"]
    assert desk.disk.files[f"{two}\\x.obj"] == b"object of #define X 3\n"
    assert counted(desk) == {"miss.local": 1, "hit.local": 5, "hit.shared": 3}


@pytest.mark.parametrize("change", SHARED_CHANGES.values(), ids=SHARED_CHANGES.keys())
def test_below_a_marker_the_daemon_is_asked_after_any_change(
    desk: Desk, change: Callable[[Desk], object]
) -> None:
    home = _checkout(desk, "C:\\w")
    desk.frame = FRAME
    assert [desk.compile(cwd=home) for _ in range(3)] == ["miss", "hit", "kept"]
    desk.disk.files.pop(f"{home}\\x.obj")
    change(desk)
    assert desk.launcher.answer(FRAME) is None
    assert f"{home}\\x.obj" not in desk.disk.files


def test_a_marker_of_another_user_has_no_effect_until_its_owner_changes(desk: Desk) -> None:
    desk.disk.put(MARKER, b"", LONG_AGO)
    desk.disk.owners[MARKER] = "S-1-5-21-2"
    kept(desk)
    # Windows gives a file with a new owner another time of change.
    del desk.disk.owners[MARKER]
    desk.disk.changed[MARKER.lower()] = LONG_AGO, LONG_AGO + 100
    assert desk.launcher.answer(FRAME) is None
    assert [desk.compile() for _ in range(3)] == ["miss", "hit", "kept"]


def test_a_private_result_below_a_marker_is_kept(desk: Desk) -> None:
    home = _checkout(desk, "C:\\w")
    desk.frame = FRAME
    argv = ("/nologo", "/c", "/Iinc", "/Z7", "/showIncludes", "x.c")
    listed = NOTES + b".\\inc/h.h\r\n"
    assert desk.compile(*argv, cwd=home) == "miss"
    assert desk.compile(*argv, cwd=home, out=listed) == "hit"
    assert desk.compile(*argv, cwd=home) == "kept"
    desk.disk.put(MARKER, b"", LONG_AGO + 1)
    assert desk.launcher.answer(FRAME) is None


# ---- sizes, precompiled headers, debug information ----


@pytest.mark.parametrize(
    ("size", "ends"), [(17 << 20, ["miss", "hit", "kept"]), (65 << 20, ["miss", "hit", "hit"])]
)
def test_results_of_up_to_64_mib_are_kept(desk: Desk, size: int, ends: list[str]) -> None:
    desk.frame, desk.extra = FRAME, bytes(size)
    assert [desk.compile() for _ in range(3)] == ends
    assert len(desk.disk.files["C:\\w\\x.obj"]) == size + len(b"object of #define X 3\n")


PCH_CHANGES: dict[str, Callable[[Desk], object]] = {
    "precompiled-header": lambda d: d.disk.put("C:\\w\\p.pch", b"made elsewhere", LONG_AGO),
    "no-precompiled-header": lambda d: d.disk.files.pop("C:\\w\\p.pch"),
    "its-header": lambda d: d.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n", LONG_AGO),
    "a-header-before-it": lambda d: d.disk.put("C:\\w\\h.h", b"#define X 4\n", LONG_AGO),
    "source": lambda d: d.disk.put("C:\\w\\x.c", b'#include "h.h"\nint g;\n', LONG_AGO),
}


def _with_precompiled(desk: Desk) -> None:
    """Make a precompiled header and compile a user until the launcher answers for it."""
    make = ("/nologo", "/c", "/Iinc", "-Xclang", "-fno-pch-timestamp", "/Ych.h", "/Fpp.pch", "p.c")
    use = ("/nologo", "/c", "/Iinc", "/Yuh.h", "/Fpp.pch", "x.c")
    desk.disk.put("C:\\w\\p.c", b'#include "h.h"\n', LONG_AGO)
    desk.written = {"C:\\w\\p.pch": b"precompiled"}
    desk.frame = FRAME + b" of the maker"
    assert [desk.compile(*make, output="C:\\w\\p.obj") for _ in range(3)] == ["miss", "hit", "hit"]
    desk.disk.put("C:\\w\\p.pch", b"precompiled", LONG_AGO)
    desk.written, desk.frame = {}, FRAME
    assert [desk.compile(*use) for _ in range(4)] == ["miss", "hit", "kept", "kept"]


@pytest.mark.parametrize("change", PCH_CHANGES.values(), ids=PCH_CHANGES.keys())
def test_a_user_of_a_precompiled_header_is_kept_and_its_maker_is_not(
    desk: Desk, change: Callable[[Desk], object]
) -> None:
    _with_precompiled(desk)
    change(desk)
    assert desk.launcher.answer(FRAME) is None


def test_a_kept_hit_of_cl_with_the_users_setting_ends_with_the_daemon(tmp_path: Path) -> None:
    desks = []
    for embeds in (True, False):
        desk = Desk(tmp_path, Settings(cache=CacheSettings(embed_debug_info=embeds)))
        desks.append(desk)
        desk.program, desk.frame = "cl.exe", FRAME
        for name in ("cl.exe", "c1xx.dll", "c2.dll"):
            desk.disk.put(f"C:\\LLVM\\bin\\{name}", b"program", LONG_AGO)
        argv = ("/c", "/Zi", "/Fdx.pdb", "/Iinc", "/showIncludes", "x.c")
        if embeds:
            assert desk.compile(*argv) == "miss"
            assert desk.compile(*argv, out=NOTES + b".\\inc/h.h\r\n") == "hit"
            assert desk.compile(*argv) == "kept"
        else:
            assert desk.compile(*argv) == "pdb"
        desk.cache.end_kept_hits()
        assert desk.launcher.answer(FRAME) is None
    for desk in desks:
        desk.counters.close()


def _begin(desk: Desk) -> Run:
    """Begin a compile of a changed header, whose compiler then runs."""
    desk.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n", LONG_AGO)
    run = desk.cache.begin(request(), lambda: False)
    assert isinstance(run, Run)
    desk.disk.put("C:\\w\\inc\\h.h", b"#define X 3\n", LONG_AGO)
    return run


def _finish(desk: Desk, run: Run) -> None:
    desk.disk.put("C:\\w\\x.obj", b"whose?", at=time.time_ns())
    desk.cache.finish(run, RunReport(0, 0, b"Note: including file: .\\inc/h.h\r\n", b"", False))


@pytest.mark.parametrize("is_put", [True, False])
def test_a_compile_whose_output_a_kept_hit_wrote_is_not_stored(desk: Desk, is_put: bool) -> None:
    kept(desk)
    run = _begin(desk)
    assert (desk.launcher.answer(FRAME, is_put=is_put) is None) is not is_put
    _finish(desk, run)
    refused = desk.counters.snapshot().get("uncacheable.modified-during-compile", 0)
    assert refused == is_put


def test_hits_before_a_compile_do_not_count_against_it(desk: Desk) -> None:
    kept(desk)
    _finish(desk, _begin(desk))
    assert "uncacheable.modified-during-compile" not in desk.counters.snapshot()
    assert counted(desk)["hit.local"] == 3


def test_nothing_is_stored_while_a_launcher_does_not_end(desk: Desk) -> None:
    kept(desk)
    run = _begin(desk)
    desk.launcher.is_in_use = True
    _finish(desk, run)
    assert desk.counters.snapshot()["uncacheable.modified-during-compile"] == 1


def test_a_hit_that_nobody_knows_stops_all_that_run(desk: Desk) -> None:
    kept(desk)
    run = _begin(desk)
    desk.launcher.log += bytes(range(16))
    desk.cache.flush()
    _finish(desk, run)
    assert desk.counters.snapshot()["uncacheable.modified-during-compile"] == 1


def test_no_hits_are_kept_while_an_older_daemon_has_the_lock(desk: Desk) -> None:
    desk.cache.end_kept_hits()
    assert not desk.launcher.is_locked
    desk.frame = FRAME
    assert [desk.compile() for _ in range(3)] == ["miss", "hit", "hit"]
