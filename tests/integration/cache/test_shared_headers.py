"""Units that read the same headers: what is remembered of these never hides a change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

pytestmark = pytest.mark.timeout(300)

_HEADERS = 50
_UNITS = 5
_FLAGS = ("-Iearly", "-Iheaders", "-MD", "-MF", "x.d")
_COMPILERS = ["gcc", "clang"]


def _fill(root: Path) -> None:
    for name in ("early", "headers", "build"):
        (root / name).mkdir(exist_ok=True)
    for number in range(_HEADERS):
        text = f'#include "h{number + 1}.h"\n' if number + 1 < _HEADERS else ""
        (root / f"headers/h{number}.h").write_text(
            f"#ifndef H{number}\n#define H{number} {number}\n{text}#endif\n"
        )
    (root / "headers/odd.h").write_text("#if __has_include(<asked.h>)\n#define ODD 1\n#endif\n")
    for unit in range(_UNITS):
        (root / f"u{unit}.c").write_text(
            f"#include <h0.h>\n#include <odd.h>\n#ifndef ODD\n#define ODD 0\n#endif\n"
            f"int unit{unit} = H3 + {unit} + 100 * ODD;\n"
        )


def _change_nothing(_root: Path) -> None:
    pass


def _shadow(root: Path) -> None:
    (root / "early/h3.h").write_text("#define H3 1003\n#include <h4.h>\n")


def _edit(root: Path) -> None:
    text = (root / "headers/h3.h").read_text()
    (root / "headers/h3.h").write_text(text.replace("H3 3", "H3 2003"))


def _answer(root: Path) -> None:
    (root / "headers/asked.h").write_text("")


def _link(root: Path) -> None:
    (root / "headers/h3.h").rename(root / "build/h3.h")
    (root / "headers/h3.h").symlink_to("../build/other.h")
    (root / "build/other.h").write_text("#define H3 3003\n#include <h4.h>\n")


@pytest.mark.parametrize("compiler", _COMPILERS)
@pytest.mark.parametrize(
    ("change", "hits"),
    [(_change_nothing, _UNITS), (_shadow, 0), (_edit, 0), (_answer, 0), (_link, 0)],
)
def test_a_change_of_a_shared_header_is_seen_by_every_unit(
    compiler: str,
    change: Callable[[Path], None],
    hits: int,
    launcher: FakeLauncher,
    cache: Cache,
) -> None:
    root = launcher.cwd
    _fill(root)
    for _ in range(2):
        time.sleep(0.08)  # what was written is older than the next compile
        before = cache.counters().get("hit.local", 0)
        for unit in range(_UNITS):
            output = root / f"build/u{unit}.o"
            argv = (compiler, *_FLAGS, "-c", f"u{unit}.c", "-o", f"build/u{unit}.o")
            assert run_bare(argv, cwd=root)[0] == 0
            expected = output.read_bytes(), (root / "x.d").read_bytes()
            output.unlink()
            assert launcher.compile(*argv).exit_code == 0
            assert (output.read_bytes(), (root / "x.d").read_bytes()) == expected
        found = cache.counters().get("hit.local", 0) - before
        change(root)
    assert found == hits
