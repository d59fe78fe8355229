"""The file and line for which a result was not kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.where import Culprit, find_culprit, first_line
from hpcc.core.reasons.uncacheable import UncacheableReason as Reason

LATER = 1 << 62


@pytest.fixture
def memo() -> FileMemo:
    return FileMemo(time.time_ns)


def written(directory: Path, **texts: str) -> list[bytes]:
    paths = [directory / name.replace("_", ".") for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return [os.fsencode(path) for path in paths]


@pytest.mark.parametrize(
    ("text", "reason", "line", "shown"),
    [
        (
            "int a;\n#define HAS() __has_include\n",
            Reason.HAS_INCLUDE,
            2,
            "#define HAS() __has_include",
        ),
        ("int a;\n\nchar *t = __TIME__;\nint b;\n", Reason.DATE_TIME, 3, "char *t = __TIME__;"),
        ("//\nchar *t = __TIMESTAMP__;\n", Reason.TIMESTAMP, 2, "char *t = __TIMESTAMP__;"),
        ('a\nb\n#pragma GCC dependency "x"', Reason.PRAGMA_DEPENDENCY, 3, "#pragma GCC dependency"),
        ("#define M \\\n  __DATE__\n", Reason.DATE_TIME, 2, "__DATE__"),
    ],
)
def test_the_first_line_with_the_hazard_is_named(
    memo: FileMemo, tmp_path: Path, text: str, reason: Reason, line: int, shown: str
) -> None:
    files = written(tmp_path, a_c="int x;\n", b_h=text)
    found = find_culprit(memo, UncacheableError(reason), files, (), 0)
    assert found is not None
    assert (found.file, found.line) == (str(tmp_path / "b.h"), line)
    assert found.text.startswith(shown)
    assert str(found).startswith(f"{tmp_path}/b.h:{line}: ")


def test_a_use_of_another_files_alias_is_named(memo: FileMemo, tmp_path: Path) -> None:
    files = written(
        tmp_path, a_c="int x;\n#if HAS(N(1))\n#endif\n", b_h="#define HAS(x) __has_include(x)\n"
    )
    found = find_culprit(memo, UncacheableError(Reason.HAS_INCLUDE), files, (), 0)
    assert found == Culprit(str(tmp_path / "a.c"), 2, "#if HAS(N(1))")


def test_a_definition_that_hides_a_name_is_named(memo: FileMemo, tmp_path: Path) -> None:
    files = written(tmp_path, a_c="#if __has_include(N)\n#endif\n", b_h="\n#define N X(1)\n")
    found = find_culprit(memo, UncacheableError(Reason.HAS_INCLUDE), files, (), 0)
    assert found == Culprit(str(tmp_path / "b.h"), 2, "#define N X(1)")
    files = written(tmp_path, a_c="\n#if __has_include(__FILE__)\n#endif\n", b_h="")
    found = find_culprit(memo, UncacheableError(Reason.HAS_INCLUDE), files, (), 0)
    assert found == Culprit(str(tmp_path / "a.c"), 2, "#if __has_include(__FILE__)")


def test_a_twin_is_named_with_its_line_and_the_other_file(memo: FileMemo, tmp_path: Path) -> None:
    text = "// x\n#pragma once\nint a;\n"
    files = written(tmp_path, a_c="int x;\n", b_h=text, c_h=text)
    found = find_culprit(memo, UncacheableError(Reason.TWIN_HEADERS), files, (), 0)
    assert found is not None
    assert (found.file, found.line) == (str(tmp_path / "c.h"), 2)
    assert f"same content as {tmp_path}/b.h" in found.text


def test_a_hazard_on_the_command_line_is_named(memo: FileMemo, tmp_path: Path) -> None:
    files = written(tmp_path, a_c="int x;\n")
    found = find_culprit(
        memo, UncacheableError(Reason.DATE_TIME), files, (b"-c", b"-DT=__TIME__"), 0
    )
    assert found == Culprit("the command line", 0, "-DT=__TIME__")


def test_a_young_and_a_vanished_file_are_named_without_a_line(
    memo: FileMemo, tmp_path: Path
) -> None:
    files = written(tmp_path, a_c="int x;\n", b_h="")
    young = find_culprit(memo, UncacheableError(Reason.MODIFIED_DURING_COMPILE), files, (), 0)
    assert str(young) == f"{tmp_path}/a.c: it changed, or is too young"
    (tmp_path / "b.h").unlink()
    gone = find_culprit(memo, UncacheableError(Reason.INPUT_VANISHED), files, (), LATER)
    assert str(gone) == f"{tmp_path}/b.h: it vanished"


def test_other_reasons_and_clean_files_have_no_culprit(memo: FileMemo, tmp_path: Path) -> None:
    files = written(tmp_path, a_c="int x;\n")
    assert find_culprit(memo, UncacheableError(Reason.LONG_DIAGNOSTICS), files, (), 0) is None
    assert find_culprit(memo, UncacheableError(Reason.DATE_TIME), files, (), 0) is None


def test_a_line_reaches_the_terminal_without_control_characters(
    memo: FileMemo, tmp_path: Path
) -> None:
    files = written(tmp_path, a_c="char *t = /* \x1b[2J */ __TIMESTAMP__;" + "x" * 300)
    found = find_culprit(memo, UncacheableError(Reason.TIMESTAMP), files, (), 0)
    assert found is not None
    assert "\x1b" not in found.text
    assert len(found.text) == 120


def test_the_line_is_found_with_few_questions() -> None:
    lines = [b"x\n"] * 100_000
    lines[77_777] = b"y\n"
    asked = []

    def has_y(data: bytes) -> bool:
        asked.append(len(data))
        return b"y" in data

    assert first_line(lines, has_y) == 77_778
    assert len(asked) < 20


def test_an_error_that_knows_its_path_is_believed(memo: FileMemo) -> None:
    error = UncacheableError(Reason.MODIFIED_DURING_COMPILE, b"/src/compat")
    found = find_culprit(memo, error, (), (), 0)
    assert str(found) == "/src/compat: it changed, or was put there"


def test_a_name_sends_no_control_characters_to_the_terminal() -> None:
    name = os.fsdecode(b"/src/\x1b]0;x\x07\n\xff.h")
    assert str(Culprit(name, 3, "int a;")) == "/src/?]0;x???.h:3: int a;"
