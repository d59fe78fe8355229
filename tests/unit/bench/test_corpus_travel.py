"""`make bench-corpus ARGS=--farm` without a farm: trees, records, the table."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from corpus.farming import travelled, why_not
from corpus.travel import Travel, put_under_control, rendered_travel, without_line_breaks

from hpcc.cache.results.records_read import CompileRecord


def record(outcome: str, fallback: str = "", reason: str = "") -> CompileRecord:
    return CompileRecord(
        at=0.0, outcome=outcome, reason=reason, fallback=fallback, output="/o", sources=("a.c",),
        argv=("cc",), cwd="/", compiler="", identity="", image="", key="", result="", duration_ms=0,
    )  # fmt: skip


def test_only_a_result_of_the_farm_is_one_that_travelled() -> None:
    assert travelled(record("miss.remote.executed"))
    assert travelled(record("hit.remote"))
    assert why_not(record("miss.remote.cached")) == ""
    assert not travelled(None)
    assert why_not(None) == "no record"
    assert why_not(record("miss.local", fallback="native: a flag")) == "native: a flag"
    assert why_not(record("bypass", reason="verbose-asm")) == "bypass verbose-asm"


def test_a_tree_gets_version_control_and_loses_its_markers(tmp_path: Path) -> None:
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/deep/.hpcc").touch()
    put_under_control(tmp_path)
    put_under_control(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        ".git", "src", "src/deep",
    ]  # fmt: skip


def test_line_breaks_of_a_depfile_do_not_count() -> None:
    assert without_line_breaks("a.o.d", b"a.o: a.c \\\n a.h\n") == b"a.o: a.c a.h"
    assert without_line_breaks(".deps/a.Tpo", b"a.o: \\\n a.c\n") == b"a.o: a.c"
    assert without_line_breaks("a.o", b"\x7fELF \\\n x") == b"\x7fELF \\\n x"


def test_the_table_has_the_share_and_why_the_rest_stays() -> None:
    good = Travel("a", commands=98, travelled=98)
    bad = Travel(
        "b", commands=2, stayed=["native: x (a.c)", "native: y (b.c)"], trouble="stopped after 9 s"
    )
    text, is_good = rendered_travel([good, bad])
    assert is_good
    assert "98 of 100 compiles travel (98.0 %)" in text
    assert "native 2" in text
    assert "stays: b: native: y (b.c)" in text
    assert "not measured: b: stopped after 9 s" in text
    bad.commands += 1
    assert not rendered_travel([good, bad])[1]
    good.differing.append("a.c: a.o")
    assert not rendered_travel([good])[1]
    assert not rendered_travel([])[1]
