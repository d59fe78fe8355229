"""Which files and names a result on Windows depends on, with a disk in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hpcc.cache.base.manifest import InputSet, decode_manifest, encode_manifest, make_set
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.windows.disk import FileTimes
from hpcc.cache.windows.inputs import CompileFiles, Texts, find_inputs
from hpcc.cache.windows.state import State
from hpcc.compilers.scan.scan import Hazard, Scan
from hpcc.core import parse_windows_path
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc_testkit.windows.memory_disk import MemoryDisk

START = 1_000_000_000_000_000_123
OLD = START - 10_000_000_000
KEY = b"k" * 32


def project(source: bytes = b'#include "h.h"\n#include <sys/s.h>\n') -> MemoryDisk:
    disk = MemoryDisk(now=OLD)
    disk.put("C:\\w\\x.c", source)
    disk.put("C:\\w\\inc\\h.h", b"int h;\n")
    disk.put("C:\\sdk\\sys\\s.h", b"")
    disk.put("C:\\w\\early\\other.h")
    return disk


def found(
    disk: MemoryDisk,
    *listed: str,
    settle: Callable[[Hazard], None] = lambda _doubts: None,
    names_before: Mapping[bytes, frozenset[bytes]] | None = None,
    forced: tuple[bytes, ...] = (),
    **more: Any,
) -> InputSet:
    """Return what is stored for a compile of C:\\w\\x.c that read `listed`."""
    files = listed or ("C:\\w\\inc\\h.h", "C:\\sdk\\sys\\s.h")
    compiled = CompileFiles(
        cwd=parse_windows_path("C:\\w"),
        files=tuple(map(parse_windows_path, ("C:\\w\\x.c", *files))),
        search=tuple(map(parse_windows_path, ("C:\\w\\early", "C:\\w\\inc", "C:\\sdk"))),
        forced=forced,
        in_arguments=Scan(),
        started_ns=START,
        names_before=names_before or {},
        settle=settle,
    )
    inputs = find_inputs(disk, Texts(), compiled, **more)
    made = make_set(KEY, inputs.files, inputs.present, inputs.absences)
    (read,) = decode_manifest(encode_manifest((made,)))  # as from the store
    return read


def refused(disk: MemoryDisk, *listed: str, **more: Any) -> str:
    with pytest.raises(UncacheableError) as caught:
        found(disk, *listed, **more)
    return str(caught.value.reason)


def test_a_result_holds_while_nothing_changed() -> None:
    disk = project()
    assert State(disk).holds(found(disk))


@pytest.mark.parametrize(
    "path",
    [
        "C:\\w\\early\\h.h", "C:\\w\\h.h", "C:\\w\\H.H", "C:\\w\\early\\sys\\S.h",
        "C:\\w\\inc\\sys\\s.h",
    ],
)  # fmt: skip
def test_it_does_not_hold_when_a_header_appears_in_an_earlier_directory(path: str) -> None:
    disk = project()
    inputs = found(disk)
    disk.put(path)
    assert not State(disk).holds(inputs)


@pytest.mark.parametrize("path", ["C:\\w\\x.c", "C:\\w\\inc\\h.h", "C:\\sdk\\sys\\s.h"])
def test_it_does_not_hold_when_a_file_changed_or_vanished(path: str) -> None:
    disk = project()
    inputs = found(disk)
    disk.put(path, b"int other;\n")
    assert not State(disk).holds(inputs)
    del disk.files[path]
    assert not State(disk).holds(inputs)


def test_letters_that_ntfs_may_fold_count_as_equal() -> None:
    disk = project('#if __has_include("ü.h")\n#endif\n'.encode())
    inputs = found(disk, "C:\\w\\inc\\h.h")
    for name in ("Ü.h", "ü.h"):
        disk.put(f"C:\\w\\early\\{name}")
        assert not State(disk).holds(inputs)
        del disk.files[f"C:\\w\\early\\{name}"]
    assert State(disk).holds(inputs)


def test_a_directory_in_place_of_a_header_is_no_header() -> None:
    disk = project()
    inputs = found(disk)
    disk.directories.add("C:\\w\\early\\h.h")
    assert State(disk).holds(inputs)


def test_a_file_that_was_there_and_not_read_must_stay() -> None:
    disk = project(b'#if __has_include("other.h")\n#endif\n')
    inputs = found(disk, "C:\\w\\inc\\h.h")
    assert inputs.present == (b"C:\\w\\early\\other.h",)
    del disk.files["C:\\w\\early\\other.h"]
    assert not State(disk).holds(inputs)


@pytest.mark.parametrize("name", ["h.h.pch", "H.H.GCH"])
def test_clang_takes_a_precompiled_header_unasked(name: str) -> None:
    disk = project()
    inputs = found(disk, forced=(b"inc/h.h", b"none/f.h"))
    assert State(disk).holds(inputs)
    disk.directories.add(f"C:\\w\\inc\\{name}")
    assert not State(disk).holds(inputs)
    disk.directories.discard(f"C:\\w\\inc\\{name}")
    disk.put(f"C:\\w\\inc\\{name}")
    assert not State(disk).holds(inputs)
    assert refused(disk, forced=(b"inc\\h.h",)) == "pch"


def test_a_file_behind_a_macro_is_looked_for_by_its_name() -> None:
    disk = project(b"#define H <h.h>\n#include H\n")
    inputs = found(disk, "C:\\w\\inc\\h.h")
    disk.put("C:\\w\\early\\h.h")
    assert not State(disk).holds(inputs)


@pytest.mark.parametrize("times", [(OLD, START), (START, OLD), (OLD, 0)], ids=["changed", "written", "no time"])  # fmt: skip
def test_a_file_that_may_have_changed_since_the_start_is_refused(times: tuple[int, int]) -> None:
    disk = project()
    disk.changed["c:\\w\\inc\\h.h"] = times
    assert refused(disk) == "modified-during-compile"


def test_a_file_that_is_open_for_writing_is_refused() -> None:
    disk = project()
    disk.writers.add("C:\\w\\inc\\h.h")
    assert refused(disk) == "modified-during-compile"
    del disk.files["C:\\w\\inc\\h.h"]
    assert refused(disk) == "input-vanished"


def test_a_new_file_that_was_not_read_is_refused() -> None:
    disk = project()
    disk.put("C:\\w\\early\\h.h", at=START + 1)
    assert refused(disk) == "modified-during-compile"


def test_a_name_that_vanished_from_a_changed_directory_is_refused() -> None:
    disk = project(b"#if __has_include(<gone.h>)\n#endif\n")
    disk.changed["c:\\w\\early"] = START, START
    assert refused(disk, "C:\\w\\inc\\h.h") == "modified-during-compile"
    before = {b"C:\\w\\early": frozenset({b"other.h"})}
    found(disk, "C:\\w\\inc\\h.h", names_before=before)
    before = {b"C:\\w\\early": frozenset({b"other.h", b"gone.h"})}
    assert refused(disk, "C:\\w\\inc\\h.h", names_before=before) == "modified-during-compile"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b'#include "LONGNA~1.H"\n', "unclear-name"),
        (b'#include "aux.h"\n', "unclear-name"),
        (b'#include "h.h."\n', "unclear-name"),
        (b'#include "//server/share/h.h"\n', "unclear-name"),
        (b'#pragma include_alias("a.h", "h.h")\n#include "a.h"\n', "unclear-name"),
        (b'#import "type.tlb"\n', "unclear-name"),
        (b"import std;\n", "modules"),
        (b"int x; /* y */ export im\\\nport :part;\n", "modules"),
        (b"#define ASK(x) __has_include(x)\n#if ASK(<y.h>)\n#endif\n", "has-include"),
    ],
)
def test_what_no_list_shows_is_refused(source: bytes, reason: str) -> None:
    assert refused(project(source), "C:\\w\\inc\\h.h") == reason


def test_a_name_that_begins_like_a_module_is_none() -> None:
    found(project(b"import_table f(void);\nmodule_t g(void) { return h; }\n"), "C:\\w\\inc\\h.h")


def test_names_that_no_file_can_have_are_absent() -> None:
    found(project(b'#include "a?b.h"\n#include <h.h>\n'), "C:\\w\\inc\\h.h")


def test_two_names_that_only_the_wide_comparison_takes_for_one_are_refused() -> None:
    disk = project('#if __has_include("é.h")\n#endif\n'.encode())
    disk.put("C:\\w\\early\\è.h")
    assert refused(disk, "C:\\w\\inc\\h.h") == "unclear-name"


def test_two_files_of_one_content_that_is_read_once_are_refused() -> None:
    disk = project()
    for path in ("C:\\w\\inc\\h.h", "C:\\w\\early\\other.h"):
        disk.put(path, b"#pragma once\n")
    assert refused(disk, "C:\\w\\inc\\h.h", "C:\\w\\early\\other.h") == "twin-headers"
    disk.put("C:\\w\\x.c", b'#include "h.h"\n#include "other.h"\n')
    assert refused(disk, "C:\\w\\inc\\h.h") == "twin-headers"


@pytest.mark.parametrize(
    "text", [b"const char *d = __DATE__;\n", b'void f(void) { __asm__(M); }\n', b"void f(void) { __asm { nop } }\n"]
)  # fmt: skip
def test_a_doubt_is_settled_by_the_preprocessor_or_refuses(text: bytes) -> None:
    disk = project(text)
    asked: list[Hazard] = []
    found(disk, "C:\\w\\inc\\h.h", settle=asked.append)
    assert len(asked) == 1

    def refuse(doubts: Hazard) -> None:
        raise UncacheableError(UncacheableReason.INCBIN)

    assert refused(disk, "C:\\w\\inc\\h.h", settle=refuse) == "incbin"

    def edit(doubts: Hazard) -> None:
        disk.put("C:\\w\\inc\\h.h", b"edited", at=START + 1)

    assert refused(disk, "C:\\w\\inc\\h.h", settle=edit) == "modified-during-compile"


def test_a_search_directory_on_a_drive_that_is_not_there_is_refused() -> None:
    disk = project()
    compiled = CompileFiles(
        cwd=parse_windows_path("C:\\w"), files=(parse_windows_path("C:\\w\\x.c"),),
        search=(parse_windows_path("Q:\\inc"),), forced=(), in_arguments=Scan(),
        started_ns=START, names_before={}, settle=lambda _doubts: None,
    )  # fmt: skip
    with pytest.raises(UncacheableError) as caught:
        find_inputs(disk, Texts(), compiled)
    assert caught.value.reason == "unclear-name"


def test_a_file_on_the_search_path_may_rename_headers() -> None:
    disk = project()
    del disk.files["C:\\w\\early\\other.h"]
    disk.directories.discard("C:\\w\\early")
    disk.put("C:\\w\\early", b"pamh")
    assert refused(disk) == UncacheableReason.SEARCH_PATH


def test_two_files_whose_names_differ_in_capitals_are_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = project()
    both = ("C:\\w\\inc\\h.h", "C:\\w\\inc\\H.h", "C:\\sdk\\sys\\s.h")
    assert State(disk).holds(found(disk, *both))
    times = disk.times

    def apart(path: str, *, is_at_rest: bool) -> FileTimes | None:
        told = times(path, is_at_rest=is_at_rest)
        return told and told._replace(identity=(2, hash(path)))

    monkeypatch.setattr(disk, "times", apart)
    assert refused(disk, *both) == UncacheableReason.UNCLEAR_NAME


def test_a_path_that_only_clang_cl_can_open_is_not_taken_for_impossible() -> None:
    long = "l" * 150
    disk = project(f'#if __has_include("{long}/../../{long}/a.h")\n#endif\n'.encode())
    assert State(disk).holds(found(disk))
    disk = project(f'#if __has_include("../{long}/{long}/a.h")\n#endif\n'.encode())
    assert refused(disk) == UncacheableReason.UNCLEAR_NAME
