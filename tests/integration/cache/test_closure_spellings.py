"""Unusual ways to include a file: the scanned tree holds all files that `-M` names."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.compilers.scan.includes import scan_includes
from hpcc_testkit.cache.closures import ClosureAudit, audit_closures

pytestmark = pytest.mark.timeout(300)

_COMPILERS = ("gcc", "clang")

# Each: files, further arguments, and whether the text alone must tell.
_CASES: dict[str, tuple[dict[str, str], tuple[str, ...], bool]] = {
    "plain": ({"a.c": '#include "x.h"\n', "x.h": "\n"}, (), True),
    "indented": ({"a.c": ' \t\v\f# \t include\t"x.h"\n', "x.h": ""}, (), True),
    "no-blank": ({"a.c": '#include"x.h"\n#include<y.h>\n', "x.h": "", "y.h": ""}, ("-I.",), True),
    "digraph": ({"a.c": '%:include "x.h"\n', "x.h": ""}, (), True),
    "trigraph": ({"a.c": '??=include "x.h"\n', "x.h": ""}, ("-std=c99",), True),
    "spliced": ({"a.c": '#inc\\\nlude \\\n "x\\\n.h"\n', "x.h": ""}, (), True),
    "spliced-crlf": ({"a.c": '#include \\\r\n"x.h"\r\n', "x.h": ""}, (), True),
    "splice-by-trigraph": ({"a.c": '#include ??/\n"x.h"\n', "x.h": ""}, ("-std=c99",), False),
    "bom": ({"a.c": '\ufeff#include "x.h"\n', "x.h": ""}, (), True),
    "comment-before": ({"a.c": '/* a */ /* b\n*/ #include "x.h"\n', "x.h": ""}, (), True),
    "comment-between": ({"a.c": '#/* a */include/*b*/"x.h"/**/\n', "x.h": ""}, (), True),
    "comment-of-lines": ({"a.c": '# /* a\nb */ include "x.h"\n', "x.h": ""}, (), True),
    "comment-behind": ({"a.c": '#include "x.h" // x\n#include <y.h> /* y\n*/\n',
                        "x.h": "", "y.h": ""}, ("-I.",), True),
    "slashes-in-name": ({"a.c": "#include <d//y.h>\n", "d/y.h": ""}, ("-I.",), True),
    "apostrophe": ({"a.c": "#if 0\ndon't /* stop\n#endif\n#include \"x.h\"\n/* */\n",
                    "x.h": ""}, (), True),
    "in-a-raw-string": ({"a.cc": 'const char *s = R"(/*)";\n#include "x.h"\n', "x.h": ""}, (), True),
    "name-with-quote": ({"a.c": "#include <it's.h>\n", "it's.h": ""}, ("-I.",), True),
    "name-with-blanks": ({"a.c": '#include "a b.h"\n', "a b.h": ""}, (), True),
    "dots": ({"d/a.c": '#include "../e/./x.h"\n', "e/x.h": '#include "../e/y.h"\n', "e/y.h": ""},
             (), True),
    "dots-in-path": ({"a.c": "#include <x.h>\n", "b/k": "", "inc/x.h": ""}, ("-Ib/../inc",), True),
    "dots-through-nothing-else": ({"a.c": '#include "b/../x.h"\n', "b/k": "", "x.h": ""}, (), True),
    "itself": ({"a.c": "#ifndef A\n#define A\n#include __FILE__\n#endif\n"}, (), True),
    "both-branches": ({"a.c": '#if X\n#include "x.h"\n#else\n#include "y.h"\n#endif\n',
                       "x.h": "", "y.h": ""}, (), True),
    "next": ({"a.c": "#include <x.h>\n", "i/x.h": "#include_next <x.h>\n",
              "j/x.h": '#include "z.h"\n', "j/z.h": ""}, ("-Ii", "-Ij"), True),
    "next-quoted": ({"a.c": '#include "x.h"\n', "x.h": '#ifndef X\n#define X\n#include_next "x.h"\n#endif\n',
                     "j/x.h": ""},
                    ("-Ij",), True),
    "import": ({"a.c": '#import "x.h"\n#import <y.h>\n', "x.h": "", "j/y.h": "\n"}, ("-Ij",), True),
    "kinds": ({"s/a.c": '#include "q.h"\n#include <s.h>\n#include <d.h>\n', "q/q.h": "",
               "y/s.h": "", "z/d.h": ""}, ("-iquote", "q", "-isystemy", "-idirafter", "z"), True),
    "shadowed-system": ({"a.c": "#include <stdio.h>\n", "c/stddef.h": "#include_next <stddef.h>\n"},
                        ("-Ic",), True),
    "shadowed-cxx": ({"a.cc": "#include <string>\n", "c/stdlib.h": "#include_next <stdlib.h>\n"},
                     ("-Ic",), True),
    "forced": ({"a.c": "", "f.h": '#include "g.h"\n', "g.h": "", "i/m.h": "#define M\n"},
               ("-include", "f.h", "-imacros", "m.h", "-Ii"), True),
    "macro-of-a-file": ({"a.c": '#include "c.h"\n#include CFG\n', "c.h": '#define CFG "x.h"\n',
                         "x.h": ""}, (), True),
    "macro-of-a-macro": ({"a.c": "#define A B\n#define B <x.h>\n#include A\n", "i/x.h": ""},
                         ("-Ii",), True),
    "macro-of-argv": ({"a.c": "#include CFG\n", "x.h": ""}, ('-DCFG="x.h"',), True),
    "macro-of-argv-angled": ({"a.c": "#include CFG\n", "x.h": ""}, ("-DCFG=<x.h>", "-I."), True),
    "macro-through-wp": ({"a.c": "#include CFG\n", "x.h": ""}, ('-Wp,-DCFG="x.h"',), True),
    "macro-per-includer": ({"a.c": '#include "d/b.h"\n#define CFG "x.h"\n#include "d/b.h"\n',
                            "d/b.h": "#ifdef CFG\n#include CFG\n#endif\n", "d/x.h": ""}, (), True),
    "macro-made": ({"a.c": "#define S(x) #x\n#define H(x) S(x.h)\n#include H(x)\n", "x.h": ""},
                   (), False),
    "macro-of-both-kinds": ({"a.c": "#ifdef Q\n#define C H(y)\n#else\n#define C \"x.h\"\n#endif\n"
                             "#include C\n", "x.h": ""}, (), False),
    "macro-of-the-compiler": ({"a.c": "#define S(x) #x\n#include S(x.h)\n", "x.h": ""}, (), False),
    "macro-of-nobody": ({"a.c": "#ifdef U\n#include U\n#endif\n"}, (), True),
    "asks": ({"a.c": '#if __has_include("x.h")\n#include "x.h"\n#endif\n', "x.h": ""}, (), True),
    "asks-by-alias": ({"a.c": '#include "h.h"\n#if HAS("x.h")\n#include "x.h"\n#endif\n',
                       "h.h": "#define HAS(x) __has_include(x)\n", "x.h": ""}, (), True),
    "asks-by-synonym": ({"a.c": '#include "h.h"\n#if HAS("x.h")\n#include "x.h"\n#endif\n',
                         "h.h": "#define HAS __has_include\n", "x.h": ""}, (), True),
    "asks-of-a-macro": ({"a.c": '#include "h.h"\n#if __has_include(N)\n#include N\n#endif\n',
                         "h.h": "#define N M\n#define M <x.h>\n", "i/x.h": ""}, ("-Ii",), True),
    "asks-by-argv": ({"a.c": "#if Q(N)\n#include N\n#endif\n", "i/x.h": ""},
                     ("-Ii", "-DQ=__has_include", "-DN=<x.h>"), True),
    "by-link": ({"a.c": '#include "l/x.h"\n', "r/x.h": '#include "y.h"\n', "r/y.h": "",
                 "l": "->r"}, (), True),
    "file-by-link": ({"a.c": '#include "l.h"\n', "r/x.h": "", "l.h": "->r/x.h"}, (), True),
    "assembler": ({"a.S": "# don't\n#include \"x.h\"\n", "x.h": "#define X\n"}, (), True),
    "prose": ({"a.c": '/*\n * #include <nothing.h>\n#include "x.h"\n*/\n', "x.h": ""}, (), True),
}  # fmt: skip


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_bytes(text.encode())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosureAudit]:
    with audit_closures(tmp_path_factory.mktemp("client")) as audit:
        yield audit


@pytest.fixture
def audit(client: ClosureAudit) -> ClosureAudit:
    client.forget()
    return client


@pytest.mark.parametrize("name", _CASES)
def test_an_odd_spelling_is_found(name: str, tmp_path: Path, audit: ClosureAudit) -> None:
    files, arguments, is_scanned = _CASES[name]
    root = tmp_path.resolve() / "project"
    root.mkdir()
    (root / ".hpcc").touch()
    write(root, files)
    source = next(n for n in files if n.rpartition("/")[2].startswith("a."))
    for compiler in _COMPILERS:
        driver = {"gcc": "g++", "clang": "clang++"}[compiler] if source.endswith("cc") else compiler
        audit.check(root, root, (driver, *arguments, "-w", "-c", source, "-o", "a.o"))
    assert audit.scanned == (len(_COMPILERS) if is_scanned else 0), audit.asked


@pytest.mark.parametrize("seed", range(24))
def test_a_random_graph_of_includes_is_covered(
    seed: int, tmp_path: Path, audit: ClosureAudit
) -> None:
    random_ = random.Random(seed)
    root = tmp_path.resolve() / "project"
    directories = ["", "a", "a/b", "i", "j", "j/a", "k"]
    names = [f"h{i}.h" for i in range(10)]
    places = [f"{d}/{n}".lstrip("/") for d in directories for n in names if random_.random() < 0.45]
    # So that nothing recurses: each file is read once.
    files = {
        place: f"#ifndef G{i}\n#define G{i}\n{_directives(random_, directories, names)}#endif\n"
        for i, place in enumerate(places)
    }
    files["a/main.c"] = _directives(random_, directories, names, count=6)
    root.mkdir()
    (root / ".hpcc").touch()
    write(root, files)
    for directory in directories:
        (root / directory).mkdir(parents=True, exist_ok=True)
    flags = [
        f"{random_.choice(('-I', '-iquote', '-isystem', '-idirafter'))}{d}"
        for d in random_.sample(directories[1:], 4)
    ]
    compiler = random_.choice(_COMPILERS)
    audit.check(root, root, (compiler, *flags, "-w", "-c", "a/main.c", "-o", "main.o"))
    assert audit.scanned == 1


def _directives(
    random_: random.Random, directories: list[str], names: list[str], count: int = 3
) -> str:
    """Return include lines that never fail, because each tests with `__has_include` first."""
    lines = []
    for _ in range(random_.randrange(count + 1)):
        name = random_.choice(names)
        below = random_.choice(["", "", "", "a/", "b/", "../", "../i/", "./"])
        spelled = f'"{below}{name}"' if random_.random() < 0.6 else f"<{below}{name}>"
        word = "include" if random_.random() < 0.8 else "include_next"
        lines.append(f"#if __has_{word}({spelled})\n#{word} {spelled}\n#endif\n")
    return "".join(lines)


def test_a_long_line_of_comments_is_read_in_one_pass() -> None:
    """A clone may contain anything, so time must not grow with the square of a line's length."""
    found = scan_includes(b"/**/" * 200_000 + b"\n#include " + b" " * 200_000 + b'"x.h"\n')
    assert found.quoted == {b"x.h"}
