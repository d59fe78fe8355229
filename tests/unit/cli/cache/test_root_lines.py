"""`hpcc explain` and `hpcc status` name the root of a project, and the way it was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.results.records_read import CompileRecord
from hpcc.cli.cache.explain import explain_lines
from hpcc.cli.cache.local import root_line

RECORD = CompileRecord(
    at=1000.0, outcome="miss.local", reason="", fallback="", output="/p/a.o", sources=("/p/a.c",),
    argv=("gcc", "-c", "a.c"), cwd="/p", compiler="/usr/bin/gcc", identity="", image="", key="",
    result="", duration_ms=0,
)  # fmt: skip


def test_explain_shows_the_recorded_root() -> None:
    text = "/p (.git), called /p in objects"
    assert f"  root          {text}" in explain_lines([replace(RECORD, root=text)])


def test_explain_looks_for_the_root_of_a_compile_here(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "build").mkdir()
    record = replace(RECORD, cwd=f"{tmp_path}/build", sources=(f"{tmp_path}/a.c",))
    assert f"  root          {tmp_path} (.git)" in explain_lines([record])
    (tmp_path / ".hpcc").touch()
    assert f"  root          {tmp_path} (.hpcc)" in explain_lines([record])


def test_explain_says_nothing_without_a_root(tmp_path: Path) -> None:
    record = replace(RECORD, cwd=f"{tmp_path}", sources=(f"{tmp_path}/a.c",))
    assert not any(line.startswith("  root ") for line in explain_lines([record]))


def test_status_names_the_root_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert root_line().startswith("the directory of each compile: ")
    (tmp_path / ".hg").mkdir()
    assert root_line() == f"{tmp_path} (.hg)"
