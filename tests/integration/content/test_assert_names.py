"""An object shows only the names that `visible_names` finds, wherever an `assert` stands.

`__builtin_FILE()` in a default argument or a default member initialiser names the file of the call.
glibc's assert in C++ is made of it, and a statement's assert is taken for one of the file in which it stands.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcc.compilers.clang.family import CLANG
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.scan.shown_names import names_arguments

_HEAD = "#include <assert.h>\nextern bool ok;\nstruct P { int v; operator int() const { return v; } };\n"
_DEFAULTS = {
    "lambda-in-a-member": "struct T { int v = [] { assert(ok); return 1; }(); };\n",
    "braces-in-a-member": "struct T { P v{(assert(ok), 1)}; };\n",
    "braces-around-a-list": "struct T { int v{((void)0, (assert(ok)), 2)}; };\n",
    "nested-braces": "struct T { int v = []() noexcept { if (1) { assert(ok); } return 1; }(); };\n",
    "template": "template <class X> struct G { int v = [] { assert(ok); return 1; }(); };\n"
    "using T = G<int>;\n",
    "lambda-in-an-argument": "struct T { int v; "
    "T(int n = [] { assert(ok); return 1; }()) : v(n) {} };\n",
    "braces-in-an-argument": "struct T { int v; T(P p = {(assert(ok), 1)}) : v(p.v) {} };\n",
    "lambdas-in-arguments": "struct T { int v; T(int n = [] { { assert(ok); } return 1; }(),"
    " int m = [] { ; assert(!ok); return 1; }()) : v(n + m) {} };\n",
    "statement-in-a-member": "inline auto make() { struct L { int v = ({ assert(ok); 1; }); };"
    " return L(); }\nusing T = decltype(make());\n",
    "statement-in-an-argument": "inline int g() { int call(int n = ({ assert(ok); 1; }));"
    " return call(); }\nstruct T { int v = g(); };\n",
    "statement-in-a-function": "struct T { int v; T() : v(({ assert(ok); 1; })) {} };\n",
}
_USE = "#include <d.h>\nint use() { T t; T u{}; T *w = new T(); return w->v + u.v + t.v; }\n"


@pytest.mark.parametrize("name", _DEFAULTS)
@pytest.mark.parametrize("compiler", ["g++", "g++-14", "clang++", "clang++-19"])
def test_an_assert_in_a_default_shows_no_other_name(
    compiler: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "inc").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "inc/d.h").write_text(_HEAD + _DEFAULTS[name])
    (tmp_path / "src/use.cc").write_text(_USE)
    command = [compiler, "-O0", "-w", f"-I{tmp_path}/inc", "-c", str(tmp_path / "src/use.cc")]
    done = subprocess.run([*command, "-o", "use.o"], cwd=tmp_path, capture_output=True, check=False)
    if done.returncode:
        assert name.startswith("statement-in"), done.stderr
        return  # nearly no compiler accepts a statement there, so nothing is stored
    data = (tmp_path / "use.o").read_bytes()
    preprocessed = subprocess.run(
        [*(a for a in command if a != "-c"), "-E", *map(bytes.decode, names_arguments())],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    family = CLANG if compiler.startswith("clang") else GNU
    source = str(tmp_path / "src/use.cc").encode()
    names = family.visible_names(preprocessed, source)
    shown = {f for f in ("inc/d.h", "src/use.cc") if str(tmp_path / f).encode() + b"\0" in data}
    assert shown
    assert names is None or shown <= {str(Path(n.decode()).relative_to(tmp_path)) for n in names}


@pytest.mark.parametrize("compiler", ["gcc", "gcc-14", "clang", "clang-19"])
def test_an_assert_in_an_initialiser_of_c_shows_the_file_of_the_use(
    compiler: str, tmp_path: Path
) -> None:
    header = tmp_path / "d.h"
    header.write_text("#include <assert.h>\n#define CHECKED(x) { ({ assert(x); 1; }) }\n")
    source = tmp_path / "use.c"
    source.write_text('#include "d.h"\nint use(int x) { int v[] = CHECKED(x); return v[0]; }\n')
    command = [compiler, "-O0", str(source)]
    subprocess.run([*command, "-c", "-o", "use.o"], cwd=tmp_path, check=True)
    data = (tmp_path / "use.o").read_bytes()
    text = subprocess.run(
        [*command, "-E", *map(bytes.decode, names_arguments())],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    family = CLANG if compiler.startswith("clang") else GNU
    names = family.visible_names(text, str(source).encode())
    assert str(source).encode() in data
    assert str(header).encode() not in data
    assert names is None or str(source).encode() in names
