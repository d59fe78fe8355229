"""Every command of hpcc prints with one function, which lets no control character pass."""

from __future__ import annotations

import ast
import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpcc.cli
from hpcc.cli.base.terminal import emit
from hpcc.cli.main import main
from hpcc.obs.text import plain

CLI = Path(hpcc.cli.__file__).parent
# They write JSON, or records of a trail as they are stored; both escape what is not printable.
# The tenants table is written as it is only where no terminal reads it.
WRITERS = {
    "audit/audit.py", "audit/scheduler_audit.py", "farm/supervise.py", "farm/tenants_table.py",
}  # fmt: skip


def test_no_command_prints_without_it() -> None:
    printing, writing = set(), set()
    for file in CLI.rglob("*.py"):
        name = str(file.relative_to(CLI))
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                printing.add(name)
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {
                "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer",
            }:  # fmt: skip
                writing.add(name)
    assert printing == {"base/terminal.py"}
    assert writing == WRITERS


def test_every_process_logs_through_one_formatter() -> None:
    package = CLI.parent
    found = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if "basicConfig(" in file.read_text() or "StreamHandler(" in file.read_text()
    }
    assert found == {"obs/logs.py"}


@pytest.mark.parametrize(
    "words", [["stats", "\x1b]0;owned\x07"], ["image", "\x1b[2J"], ["--\x9b31m", "a\nforged: line"]]
)
def test_a_complaint_about_the_command_line_holds_no_escape(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main(words)
    shown = capsys.readouterr().err
    assert shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "\nforged" not in shown


@given(st.lists(st.text(), max_size=3))
def test_nothing_that_a_terminal_obeys_is_printed(parts: list[str]) -> None:
    file = io.StringIO()
    emit(*parts, file=file)
    shown = file.getvalue()
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert plain(shown) == shown
    assert shown.isascii() or not all(part.isascii() for part in parts)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\rb"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        ("two\nlines\t", "two\nlines\t"),
        ("Größe 日本", "Größe 日本"),
    ],
)
def test_what_it_does(text: str, shown: str) -> None:
    assert plain(text) == shown
