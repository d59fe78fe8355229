"""Names of sections, which GCC copies into its assembler output: no list shows what they read."""

from __future__ import annotations

from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, counted

# GNU as lists no files with it, so that the text decides.
_ARGV = ("gcc", "-flto", "-ffat-lto-objects", "-c", "u.c", "-o", "u.o")
_EVIL = r'"\n.incbin \42data.txt\42\n#"'
_VALUE = "int v __attribute__((section({}))) = 1;\n"


@pytest.mark.parametrize("name", ['"data_v"', '".data.v"', '/* why */ "w"'])
def test_a_plain_name_is_kept(
    name: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("u.c", _VALUE.format(name))
    project.settle()
    assert [launcher.compile(*_ARGV).answer for _ in range(2)] == ["run", "done"]
    assert counted(cache, "uncacheable.incbin") == (0,)


@pytest.mark.parametrize(
    "text",
    [
        _VALUE.format('"d" ' + _EVIL),
        f"#define E {_EVIL}\n" + _VALUE.format('"d" E'),
        f"#define E {_EVIL}\n#define section(x) __section__(x E)\n" + _VALUE.format('"d"'),
        f'#define E ("d" {_EVIL})\n#define S section\n#define P(a, b) a b\n'
        + _VALUE.format('"plain"')
        + "int w __attribute__((P(S, E)));\n",
        f'#define E ("d" {_EVIL})\n#define P(a, b) a##b\n'
        + "int w __attribute__((P(sec, tion) E));\n",
        # The argument is a macro's, or that of another file.
        f'#define E ("d" {_EVIL})\nint v __attribute__((section E)) = 1;\n',
        f'#define E ("d" {_EVIL})\nint v __attribute__((section\n#if 1\nE\n#endif\n)) = 1;\n',
        'int v __attribute__((section\n#include "name.h"\n)) = 1;\n',
        'int v __attribute__((\n#include "word.h"\n' + f'("d" {_EVIL}))) = 1;\n',
        # A directive may begin in another way, and a comment of it may have lines.
        f'#define S /*\n*/ section\n;\nint v __attribute__((S ("d" {_EVIL}))) = 1;\n',
        f'\f#define S section\n;\nint v __attribute__((S ("d" {_EVIL}))) = 1;\n',
        f'/**/#define S section\n;\nint v __attribute__((S ("d" {_EVIL}))) = 1;\n',
        f'int v __attribute__((section\0("d" {_EVIL}))) = 1;\n',
    ],
)
def test_a_name_that_is_put_together_is_read_where_it_is_whole(
    text: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    project.write("u.c", text)
    project.write("name.h", f'("d" {_EVIL})\n')
    project.write("word.h", "section")
    for content in ("DATA-1", "DATA-2"):
        project.write("data.txt", content)
        project.settle()
        assert launcher.compile(*_ARGV).answer == "run"
        assert content.encode() in (launcher.cwd / "u.o").read_bytes()
    assert counted(cache, "uncacheable.incbin") == (2,)
