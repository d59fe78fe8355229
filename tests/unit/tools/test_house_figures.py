"""The arithmetic of tools/house_figures.py: how it counts lines, questions and moves."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import house_figures as figures
import house_runs as runs


def test_code_lines_leave_out_blank_lines_comments_and_docstrings() -> None:
    text = (
        '"""A module,\n\nin three lines."""\n\n# A comment.\nx = """one\n\nthree"""  # and more\n'
        'def f():\n    """What it does."""\n    # Why.\n    return (\n        x\n    )\n'
    )
    # The text in x (3), the def and the return (3).
    assert figures.code_lines(text) == 7


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("if identity.is_clang: pass", 1),
        ("call(is_clang=identity.is_clang)", 1),
        ("call(is_clang=True)", 0),
        ("from a import is_clang_cl\nis_clang = 1\nself.is_clang = 2", 0),
        ("def f(is_clang): return is_clang and is_clang_cl(name)", 2),
        ("here.family == there.family", 1),
        ("compiler.family in {'msvc', 'clang-cl'}", 1),
        ("family is None or sock.family == AF_UNIX", 0),
        ("isinstance(x, (GnuFamily, int))", 1),
        ("isinstance(x, int)", 0),
    ],
)
def test_questions_about_the_compiler_are_uses_but_not_definitions(text: str, count: int) -> None:
    assert figures.compiler_questions(ast.parse(text)) == count


def test_a_mention_is_every_occurrence_outside_of_comments_and_texts() -> None:
    text = (
        "from a import is_clang_cl\ndef f(is_clang): g(is_clang=is_clang)  # is_clang\n'is_clang'\n"
    )
    assert figures.compiler_mentions(text) == 4


def test_comparisons_with_flags_are_those_with_bytes_that_begin_like_one() -> None:
    text = "a == b'-c'\nb'/Fo' in a\na.startswith((b'-I', b'x'))\na == b'-'\na == '-c'\nb'a' == a\n"
    assert figures.flag_comparisons(ast.parse(text)) == 3


def test_functions_are_long_from_def_to_end_whatever_holds_them() -> None:
    body = "\n".join(["        x = 1"] * 3)
    tree = ast.parse(f"class A:\n    def long(self):\n{body}\n    async def short(self): pass\n")
    assert figures.long_functions(tree, most=3) == ["long"]
    assert figures.long_functions(tree, most=4) == []


def test_only_public_classes_at_the_top_of_a_module_are_compared() -> None:
    tree = ast.parse("class A:\n    class B: pass\nclass _C: pass\nclass D: pass\n")
    assert figures.public_classes(tree) == ["A", "D"]
    assert figures.duplicates(["A", "D", "A", "B", "A"]) == {"A": 3}


def test_rooms_are_directories_and_the_largest_is_first() -> None:
    files = [Path("/r/hpcc/a.py"), Path("/r/hpcc/b/c.py"), Path("/r/hpcc/b/d.py")]
    assert list(figures.rooms(files, Path("/r")).items()) == [("hpcc/b", 2), ("hpcc", 1)]


@pytest.mark.parametrize("directory", ["src/hpcc/testing", "testkit/hpcc_testkit"])
def test_helpers_and_generated_files_are_not_product_wherever_helpers_live(
    directory: str, tmp_path: Path
) -> None:
    for name in ("src/hpcc/a.py", "src/hpcc/_proto/b.py", f"{directory}/deep/farm.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def farm_under_test(): pass\n")
    assert figures.product_files(tmp_path) == [tmp_path / "src/hpcc/a.py"]
    package = directory.split("/", 1)[1].replace("/", ".")
    assert runs.find_helper(tmp_path, "farm_under_test") == f"{package}.deep.farm"


def test_a_helper_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="farm_under_test"):
        runs.find_helper(tmp_path, "farm_under_test")


@pytest.mark.parametrize(
    ("name", "is_msvc"),
    [
        ("hpcc.compilers.msvc.flags", True),
        ("hpcc.cache.remote.cl_plan", True),
        ("hpcc.compilers.msvc.clang_cl_guest", True),
        ("hpcc.compilers.clang.flags", False),
        ("hpcc.cache.closure", False),
    ],
)
def test_msvc_modules_are_known_by_a_word_of_their_name(name: str, is_msvc: bool) -> None:
    assert figures.is_msvc_module(name) is is_msvc


def test_underscored_modules_are_counted_without_dunder_files() -> None:
    names = ("_a.py", "a.py", "__init__.py", "__main__.py")
    assert [figures.has_leading_underscore(Path(n)) for n in names] == [True, False, False, False]


def events(*rows: tuple[str, str, str], thread: str = "1", at: int = 5) -> list[runs.Event]:
    return [runs.Event(at, thread, kind, file, name) for kind, file, name in rows]


def test_moves_are_calls_into_another_file_and_the_returns_from_it() -> None:
    call = [("enter", "b", "g"), ("leave", "b", "g")]
    seen = events(("enter", "a", "f"), *call, *call, ("enter", "a", "h"), ("leave", "a", "h"))
    found = runs.passages(seen, 0, 9)["1"]
    assert (found.calls, found.returns, found.files) == (2, 2, {"a", "b"})
    assert found.steps == {("a", "b", "g")}
    assert found.targets == {("b", "g")}


def test_frames_from_before_the_window_are_callers_of_what_is_in_it() -> None:
    seen = events(("enter", "a", "loop"), at=1) + events(("enter", "b", "g"))
    assert runs.passages(seen, 2, 9)["1"].steps == {("a", "b", "g")}


def test_what_an_import_runs_does_not_count_but_what_the_program_runs_does() -> None:
    seen = events(
        ("enter", "main", "<main>"), ("enter", "b", "<module>"), ("enter", "c", "make_table"),
        ("leave", "c", "make_table"), ("leave", "b", "<module>"), ("enter", "b", "g"),
    )  # fmt: skip
    found = runs.passages(seen, 0, 9)["1"]
    assert found.files == {"main", "b"}
    assert (found.calls, found.returns) == (1, 0)


def test_each_thread_has_its_own_stack() -> None:
    seen = events(("enter", "a", "f")) + events(("enter", "b", "g"), thread="2")
    found = runs.passages(seen, 0, 9)
    assert [part.calls for part in found.values()] == [0, 0]
    assert runs.joined(found.values()).files == {"a", "b"}


def test_seconds_come_from_junit_files_only(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text('<testsuites><testsuite time="1.5"/><testsuite time="2"/></testsuites>')
    assert figures.junit_seconds(report) == 3.5
    report.write_text("<other/>")
    assert figures.junit_seconds(report) is None
    report.write_text("no xml")
    assert figures.junit_seconds(report) is None


def test_missing_seconds_are_reported_as_not_measured(tmp_path: Path) -> None:
    rows = figures.seconds_rows(tmp_path, {"make check": "61"})
    assert (rows["make check, s"], rows["./test.sh, s"]) == ("61", "not measured")


def test_the_table_has_one_row_for_each_figure() -> None:
    rows = {"files": 3, "rooms": {"a": 2, "b": 1}, "again": []}
    assert list(figures.markdown(rows))[2:] == [
        "| files | 3 |",
        "| rooms | a 2, b 1 |",
        "| again | none |",
    ]
