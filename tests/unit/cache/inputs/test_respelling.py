"""Which texts may give a system's header a name that is longer than its real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.inputs.respelling import Text, text_of


def _text(tmp_path: Path, text: bytes) -> Text:
    path = tmp_path / "a.h"
    path.write_bytes(text)
    memo = FileMemo(lambda: 1 << 62)
    name = bytes(path)
    digest = memo.digest(name)
    assert digest is not None
    return text_of(memo, name, digest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'#include "b.h"\n#include <c/d.h>\n', Text.NOTHING),
        (b"// see https://a.example/b\nint x; // y\n", Text.NOTHING),
        (b'#define URL "a"  // why\n#include <b.h> // c\n', Text.NOTHING),
        (b"#pragma GCC system_header\n", Text.SYSTEM),
        (b'_Pragma("GCC system_header")\n', Text.SYSTEM),
        (b'#include "./b.h"\n', Text.DOTS),
        (b"#include <./b.h>\n", Text.DOTS),
        (b'#include "a/./b.h"\n', Text.DOTS),
        (b'  # include "a//b.h"\n', Text.DOTS),
        (b'int x; // y\n\t??=include "a//b.h"', Text.DOTS),
        (b'int x; "a//b.h" # "a//b.h"\n', Text.NOTHING),
        (b'%:include "a//b.h"\n', Text.DOTS),
        (b'#define H "a////b.h"\n', Text.DOTS),
        (b'#include "../b.h"\n', Text.UP),
        (b"#define H <a/../b.h>\n", Text.UP),
        (b"// of ../b.h\n", Text.NOTHING),
        (b'#pragma GCC system_header\n#include ".././b.h"\n', Text.SYSTEM | Text.DOTS | Text.UP),
    ],
)
def test_a_texts_names(text: bytes, expected: Text, tmp_path: Path) -> None:
    assert _text(tmp_path, text) == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [b"<", b'"', b"/", b"//\n", b"#", b"include ", b"#<", b"<a/", b"#include<x", b" ", b"\n#<"],
)
def test_a_hostile_text_takes_time_by_its_size_only(piece: bytes, tmp_path: Path) -> None:
    _text(tmp_path, piece * ((1 << 20) // len(piece)))


def test_a_file_that_changed_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.h"
    path.write_bytes(b"int x;\n")
    memo = FileMemo(lambda: 1 << 62)
    assert text_of(memo, bytes(path), b"\0" * 32) == Text.SYSTEM | Text.DOTS | Text.UP
