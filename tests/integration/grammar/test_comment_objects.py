"""Files that differ in the text of comments only give the same object; others show why they may not.

The pairs are drawn at random. `HPCC_HYPOTHESIS=soak` draws ten times as many.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.content.quotes import hold_quotes
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.comment_flags import lex_mode
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.scan.comments import LexMode, comment_free
from hpcc_testkit.cache.commented import filled, in_other_lines, indented, template
from hpcc_testkit.suite.examples import examples
from hpcc_testkit.suite.sampling import seed_of

_MODES = [
    ("c", "c89"),
    ("c", "gnu89"),
    ("c", "c99"),
    ("c", "gnu17"),
    ("c", "c2x"),
    ("c++", "gnu++98"),
    ("c++", "c++98"),
    ("c++", "c++11"),
    ("c++", "gnu++17"),
    ("c++", "c++20"),
]
_FLAGS = {
    "warnings": "-O2 -Wall -Wextra -Werror",
    "debug": "-O1 -g",
    "macros": "-g3",
    "sanitizers": "-O1 -fsanitize=undefined,address",
}
# Not every release of the distribution has these.
_OTHERS = ("gcc-12", "gcc-13", "clang-14", "clang-17")
_COMPILERS = ("gcc-14", "clang-19", *filter(shutil.which, _OTHERS))


def _mode(compiler: str, language: str, flags: list[str]) -> LexMode:
    family, _, major = compiler.partition("-")
    source = b"x.c" if language == "c" else b"x.cc"
    arguments = (*(f.encode() for f in flags), b"-c", source)
    parsed = read_invocation(family.encode(), arguments)
    assert isinstance(parsed, Invocation)
    mode = lex_mode(parsed, is_clang=family == "clang", major=int(major), has_hidden_flags=False)
    assert mode is not None
    return mode


def _compile(compiler: str, language: str, flags: list[str], source: bytes, cwd: Path) -> bytes:
    """Return the object's bytes after the exit status and all messages."""
    program = (
        compiler if language == "c" else compiler.replace("gcc", "g++").replace("clang", "clang++")
    )
    name = "x.c" if language == "c" else "x.cc"
    (cwd / name).write_bytes(source)
    (cwd / "x.o").unlink(missing_ok=True)
    done = subprocess.run(
        [program, *flags, "-c", name, "-o", "x.o"],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    object_bytes = (cwd / "x.o").read_bytes() if done.returncode == 0 else b""
    return b"%d %s" % (done.returncode, done.stderr) + object_bytes


@pytest.mark.parametrize("name", _FLAGS)
@pytest.mark.parametrize("compiler", _COMPILERS)
def test_files_with_one_form_give_one_object(compiler: str, name: str, tmp_path: Path) -> None:
    chance = random.Random(f"{seed_of(os.environ)}-{compiler}-{name}")
    modes = [m for m in _MODES if m[0] == "c" or compiler != "gcc-13" or shutil.which("g++-13")]
    for language, standard in chance.sample(modes, min(len(modes), examples(3))):
        dwarf = ["-gdwarf-4"] if compiler.startswith("clang") and "-g" in _FLAGS[name] else []
        flags = [*_FLAGS[name].split(), *dwarf, f"-std={standard}"]
        mode = replace(_mode(compiler, language, flags), keeps_lines=True)
        text = template(language, standard)
        first = filled(text, chance)
        form = comment_free(first, mode)
        assert form is not None
        assert form.text != first
        expected = _compile(compiler, language, flags, first, tmp_path)
        assert expected.startswith(b"0 \x7fELF"), expected[:400]
        for source in (form.text, *(filled(text, chance) for _ in range(examples(1)))):
            again = comment_free(source, mode)
            assert again is not None
            assert again.text == form.text
            assert _compile(compiler, language, flags, source, tmp_path) == expected, (
                first,
                source,
            )


def test_what_stays_in_a_form_can_be_seen(tmp_path: Path) -> None:
    """The blanks of a line inside a comment decide a warning, so they are in the form."""
    flags = ["-Wmisleading-indentation", "-Werror"]
    mode = _mode("gcc-14", "c", flags)
    source = b"void g(void);\nvoid f(int a) {\n  if (a)\n    g();\n%s\n    g();\n}\n"
    results = []
    for comment, left in ((b"    // one", b""), (b"// one", b"/**/")):
        form = comment_free(source % comment, replace(mode, keeps_lines=True))
        assert form is not None
        assert form.text == source % left
        results.append(_compile("gcc-14", "c", flags, source % comment, tmp_path))
    assert results[0].startswith(b"1 ")
    assert results[1].startswith(b"0 \x7fELF")


@pytest.mark.parametrize("compiler", [c for c in _COMPILERS if c.startswith("gcc")])
def test_only_a_flag_makes_gcc_read_comments_of_a_case(compiler: str, tmp_path: Path) -> None:
    """A pragma that turns the warning on does not, at any level, so such a comment is text."""
    text = (
        b"int g(int);\nint f(int a) {\n  switch (a) {\n  case 1: a = g(a);\n  %s\n"
        b"  case 2: a++;\n  }\n  return a;\n}\n"
    )
    marked, bare = text % b"// FALLTHROUGH", text % b"// one"
    for warning in ("extra", "", *(f"implicit-fallthrough{n}" for n in ("", "=2", "=3", "=4"))):
        pragma = f'#pragma GCC diagnostic warning "-W{warning}"\n'.encode()
        flags = ["-Wall"]
        mode = _mode(compiler, "c", flags)
        forms = [comment_free(pragma + source, mode) for source in (marked, bare)]
        assert forms[0] == forms[1] is not None
        found = [_compile(compiler, "c", flags, pragma + s, tmp_path) for s in (marked, bare)]
        assert found[0] == found[1]
        assert b"this statement may fall through" in found[0]
    for flags in (["-Wextra"], ["-W"], ["-Wimplicit-fallthrough"], ["-Werror=extra"]):
        mode = _mode(compiler, "c", flags)
        assert comment_free(marked, mode) != comment_free(bare, mode)


@pytest.mark.parametrize("compiler", _COMPILERS)
def test_files_with_one_form_are_warned_of_alike(compiler: str, tmp_path: Path) -> None:
    """Comments between a body and the next statement decide whether GCC warns."""
    chance = random.Random(f"{seed_of(os.environ)}-{compiler}-indented")
    flags = ["-Wall", "-Werror", "-Wno-comment"]
    mode = _mode(compiler, "c", flags)
    seen: dict[bytes, tuple[bytes, bytes]] = {}
    for _ in range(examples(40)):
        source = indented(chance)
        form = comment_free(source, mode)
        assert form is not None
        result = _compile(compiler, "c", flags, source, tmp_path)
        result = result[:2] + result[result.find(b"\x7fELF") :]
        first = seen.setdefault(form.text, (source, result))
        assert first[1] == result, (first[0], source)


@pytest.mark.parametrize("compiler", _COMPILERS)
def test_messages_of_one_form_differ_in_quoted_lines_only(compiler: str, tmp_path: Path) -> None:
    chance = random.Random(f"{seed_of(os.environ)}-{compiler}-quoted")
    flags = ["-Wall", "-Wextra", "-Wno-comment"]
    mode = _mode(compiler, "c", flags)
    seen: dict[bytes, bytes] = {}
    path = os.fsencode(tmp_path / "x.c")
    for _ in range(examples(40)):
        source = indented(chance)
        form = comment_free(source, mode)
        assert form is not None
        result = _compile(compiler, "c", flags, source, tmp_path)
        messages = result[2 : result.find(b"\x7fELF")]
        first = seen.setdefault(form.text, messages)
        memo = FileMemo(time.time_ns)
        files = {path: hashlib.sha256(source).digest()}
        if hold_quotes(first, os.fsencode(tmp_path), files, memo):
            assert first == messages, source


@pytest.mark.parametrize("compiler", _COMPILERS)
def test_without_debug_information_lines_may_move(compiler: str, tmp_path: Path) -> None:
    chance = random.Random(f"{seed_of(os.environ)}-{compiler}-lines")
    for language, standard in chance.sample(_MODES, examples(2)):
        if language == "c++" and compiler == "gcc-13" and not shutil.which("g++-13"):
            continue
        # Without its line a place is a parameter that nothing uses.
        flags = ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", f"-std={standard}"]
        mode = _mode(compiler, language, flags)
        assert not mode.keeps_lines
        text = re.sub(
            r"__LINE__|__builtin_LINE\(\)|at\.line\(\)|at\.column\(\)",
            "7",
            template(language, standard),
        )
        first = filled(text, chance)
        form = comment_free(first, mode)
        assert form is not None
        expected = _compile(compiler, language, flags, first, tmp_path)
        assert expected.startswith(b"0 \x7fELF"), expected[:400]
        for source in (form.text, *(in_other_lines(text, chance) for _ in range(examples(1)))):
            again = comment_free(source, mode)
            assert again is not None
            assert again.text == form.text, (first, source)
            assert _compile(compiler, language, flags, source, tmp_path) == expected, source


@pytest.mark.parametrize("compiler", _COMPILERS)
def test_bytes_in_comments_that_a_warning_reads_are_in_the_form(
    compiler: str, tmp_path: Path
) -> None:
    """Pairs with one form get the same messages, whatever the bytes in their comments are."""
    flags = [
        "-Wall",
        "-Wextra",
        "-Wcomment",
        "-Wbidi-chars=any" if "gcc" in compiler else "-Wcomment",
    ]
    if compiler not in {"gcc-12", "clang-14"}:
        flags.append("-Winvalid-utf8")
    mode = _mode(compiler, "c", flags)
    texts = (
        b"one", b"\xc3\xa9", b"\xe9", b"\xe9*", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf",
        b"\xe2\x80\xae", b"\xe2\x80\x8f", b"\xe2\x81\xa6", b"\xe2\x80\x93", b"\xef\xbf\xbf", b"\xe2\x80",
        b"\xff\xfe", b"\\u202e", b"a /* b", b"??/ a", b"a\\ b", b"\xc2\x85", b"\xe2\x80\xa8",
    )  # fmt: skip
    seen: dict[bytes, bytes] = {}
    for text in texts:
        for source in (
            b"int a; // %s\nint b;\n",
            b"int a; /* %s*/\nint b;\n",
            b"/*\n%s\n*/\nint a, b;\n",
        ):
            form = comment_free(source % text, mode)
            if form is not None:
                result = _compile(compiler, "c", flags, source % text, tmp_path)
                assert seen.setdefault(form.text, result) == result, text


def test_clang_shows_the_bytes_of_a_file_in_dwarf_5(tmp_path: Path) -> None:
    one, two = (
        _compile("clang-19", "c", ["-gdwarf-5"], b"int a; // " + word + b"\n\n", tmp_path)
        for word in (b"one", b"two")
    )
    assert one != two


# `@` stands for the text of a comment. Lines and columns of what follows show in the objects.
_IN_C = """#include <assert.h>
#define CHECK(x) ((x) ? 0 : __LINE__)
struct S { int v; } s = { /*@
@*/
 CHECK(0) };
int f(int n) { struct S p = { //@
  CHECK(n) }; /*@*/
  assert(n /*@
 @*/
 ); return p.v; }
"""
_IN_CXX = """#include <assert.h>
#define CHECK(x) ((x) ? 0 : __LINE__)
extern bool ok;
struct S { int v; };
struct T {
  int first = []() { /*@*/
    return CHECK(0); /*@
    @ */
  }();
  S s{ //@
      CHECK(0)}; //@
  int f(S p = { //@
                /*@
    @*/
      CHECK(0)}) { return p.v; }
  int g = ([](int n) { //@
     assert(n); return n; })( //@
     1);
  int h(S p = {(assert(ok), /*@
@*/
  1)}, int q = [](int k){ assert(k); //@
   return k; }(1)) { return p.v + q; }
};
int main() { T t; return t.f() + t.g + t.h(); }
"""


@pytest.mark.parametrize("flags", ["-O0", "-O2", "-O1 -g", "-O1 -fsanitize=undefined"])
@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19", "gcc-12", "clang-14"])
def test_asserts_and_lines_in_initialisers_stay_where_they_are(
    compiler: str, language: str, flags: str, tmp_path: Path
) -> None:
    words = [*flags.split(), "-w"]
    if compiler.startswith("clang") and "-g" in words:
        words.append("-gdwarf-4")
    mode = _mode(compiler, language, words)
    text = _IN_C if language == "c" else _IN_CXX
    sources = [text.replace("@", word).encode() for word in (" x", " a longer text of words")]
    forms = {comment_free(source, mode) for source in sources}
    assert len(forms) == 1
    assert None not in forms
    objects = {_compile(compiler, language, words, source, tmp_path) for source in sources}
    assert len(objects) == 1
    assert objects.pop().startswith(b"0 \x7fELF")
    moved = text.replace("/*@*/", "/*@\n*/").replace("@", " x").encode()
    assert comment_free(moved, mode) not in forms
