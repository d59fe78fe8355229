"""Every `hpcc` command that a page shows exists and accepts the options shown."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hpcc.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
# The launcher's: what follows is a compiler's command line.
_COMPILERS = re.compile(
    r"(?:[\w.-]*-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|clang-cl|clang-tidy|cppcheck|nvcc|CC)(?:-[\d.]+)?$"
)
_UNIT_FILES = sorted((ROOT / "deploy").rglob("*.service"))


def _pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--", "*.md"], capture_output=True, check=True
    )
    names = [n for n in listed.stdout.decode().split("\0") if n and n != "CHANGELOG.md"]
    return [ROOT / name for name in names]


def _blocks(page: Path) -> list[str]:
    """Yield shell code blocks: those without a language (json, toml), except the help's text."""
    text = re.sub(r"<!-- help:begin.*?help:end -->", "", page.read_text(), flags=re.DOTALL)
    fences = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in fences if language in {"", "sh", "bash", "console"}]


def commands(block: str) -> list[list[str]]:
    """Return the argv of each `hpcc` command, also after `sudo -u USER` and in pipes."""
    found = []
    for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
        match = re.match(
            r"\s*(?:\$ )?(?:kubectl [^|]* -- )?(?:sudo (?:-u [\w-]+ )?)?(?:[A-Z_]+=\S+ )*(?:/opt/hpcc/bin/)?hpcc (.*)",
            line,
        )
        # A synopsis, with what may be left out in brackets, is for people.
        if match is None or " [" in line:
            continue
        # Remarks stand behind two blanks, a program that reads the output behind a sign.
        words = re.split(r"\s{2,}| # | *[|>;&]+ *", match[1])[0]
        found.append(shlex.split(words, comments=True))
    return found


_SHOWN = sorted(
    {
        (str(page.relative_to(ROOT)), shlex.join(argv))
        for page in _pages() for block in _blocks(page) for argv in commands(block)
        if argv and not _COMPILERS.match(argv[0])
    }
)  # fmt: skip


def refusal(argv: list[str]) -> str:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            args = build_parser().parse_args(argv)
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    return "" if hasattr(args, "handler") else "it does nothing"


def test_pages_show_commands_at_all() -> None:
    assert len({page for page, _ in _SHOWN}) >= 3
    assert len(_SHOWN) > 40


@pytest.mark.parametrize(("page", "line"), _SHOWN, ids=[f"{p}-{c}" for p, c in _SHOWN])
def test_each_command_in_a_page_exists_with_its_options(page: str, line: str) -> None:
    assert refusal(shlex.split(line)) == "", page


@pytest.mark.parametrize("line", ["scheduler --bogus", "scheduler enrol-tokens", "audit", "x y"])
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    assert refusal(shlex.split(line))


@pytest.mark.parametrize("unit", _UNIT_FILES, ids=lambda u: u.name)
def test_each_unit_starts_a_command_that_exists(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *argv = shlex.split(line)
    if program == "/opt/hpcc/bin/python":
        name = argv[argv.index("-m") + 1]
        assert name == f"hpcc.{unit.stem.removeprefix('hpcc-')}"
        assert importlib.util.find_spec(f"{name}.__main__") is not None
        return
    assert program == "/opt/hpcc/bin/hpcc"
    assert refusal(argv) == ""
    assert argv[:2] == [unit.stem.removeprefix("hpcc-"), "--config"]
