"""How often a file may be included, for the bound of GCC's locations."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.content.comments import _FEW_INCLUSIONS, _MOST_INCLUSIONS, _most_inclusions
from hpcc.cache.content.inclusions import most_inclusions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"#ifndef A\n#define A\n#endif\n", 1),
        (b"// a\n/* b\n */\n# ifndef A\n#  define A 1\n#endif\n", 1),
        (b"int a;\n#pragma once\n", 1),
        (b"# /* a */\n#\n# // b\n# ifndef A\n#  include <b.h>\n#  define A\n#endif\n", 1),
        (b"#ifndef A\n#define AB\n", _MOST_INCLUSIONS),
        (b"#if 1\n#ifndef A\n#define A\n", _MOST_INCLUSIONS),
        (b"// once\nint a;\n", _MOST_INCLUSIONS),
        (b"#ifndef A\n#define B\n", _MOST_INCLUSIONS),
        (b"int a;\n#ifndef A\n#define A\n", _MOST_INCLUSIONS),
        (b"a locale\0", 1),
        (
            b'#ifndef I\n# error "Never use <x.h> directly; include <i.h> instead."\n#endif\n\n'
            b"#ifndef X\n#define X\n",
            _FEW_INCLUSIONS,
        ),
        (b'#ifndef I\n# error "Never use <x.h> directly."\n#endif\nint a;\n', _MOST_INCLUSIONS),
    ],
)
def test_a_guard_decides(text: bytes, expected: int) -> None:
    assert _most_inclusions(text) == expected


def _times(directory: Path, **texts: str) -> int:
    """Return the bound for big.h, where each file is named like its keyword argument."""
    memo, digests = FileMemo(time.time_ns), dict[bytes, bytes]()
    for name, text in texts.items():
        path = directory / f"{name}.h"
        path.write_text(text)
        digests[bytes(path)] = memo.digest(bytes(path)) or b""
    often = digests.get(bytes(directory / "often.h"))
    big = bytes(directory / "big.h")
    return most_inclusions(memo, big, digests, lambda _, digest: 9 if digest == often else 1, 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('#include "big.h"\n', 2),
        ('#include <x/big.h>\n#include "y.h"\n// see big.h, #include it\n', 2),
        ('#inc\\\nlude "b\\\nig.h"\n', 2),
        ("int v;\n", 1),
        ('#error "never include it"\n # warning do not include <x.h>\n', 1),
        ('#error x\n#define X "big.h"\n#include X\n', 64),
        ("#define X <a.h>\n#include X\n", 64),
        ("/* */ # /* */ include /* */ X\n", 64),
        ("%: include_next X\n", 64),
    ],
)
def test_a_file_is_included_as_often_as_others_name_it(
    text: str, expected: int, tmp_path: Path
) -> None:
    assert _times(tmp_path, big="int a;\n", one=text) == expected


def test_a_name_in_a_file_that_is_included_often_counts_often(tmp_path: Path) -> None:
    name = '#include "big.h"\n'
    assert _times(tmp_path, big="", often=name, one=name + "\n") == 1 + 9 + 1
    assert _times(tmp_path, big="", often=name * 8) == 64
    # A file that is gone may name it, too.
    memo = FileMemo(time.time_ns)
    gone = {b"/nowhere/x.h": bytes(32)}
    assert most_inclusions(memo, b"/nowhere/big.h", gone, lambda _path, _digest: 1, 64) == 64
