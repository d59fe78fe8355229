"""Hits that the launcher answers by itself: when, and when not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from hpcc.cache.base.api import Run, RunReport
from hpcc.cache.key.marker import Marker
from hpcc.core import WindowsPath

from .conftest import LONG_AGO, Desk, request

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
    desk.markers[b"C:\\w"] = WindowsPath("C", ("w",)), Marker(b"")
    assert [desk.compile() for _ in range(3)] == ["miss", "hit", "hit"]
    desk.markers.clear()
    desk.disk.put("C:\\w\\.hpcc", b"", LONG_AGO)  # of another user
    assert [desk.compile() for _ in range(3)] == ["miss", "hit", "hit"]
    del desk.disk.files["C:\\w\\.hpcc"]
    output = "C:\\w\\LONGNA~1.OBJ"
    argv = ("/nologo", "/c", "/Iinc", f"/Fo{output}", "x.c")
    assert [desk.compile(*argv, output=output) for _ in range(3)] == ["miss", "hit", "hit"]


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
