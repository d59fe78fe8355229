"""The name under which GCC looks for an earlier run's counts, as GCC prints it in its warning."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.inputs import files_looked_for
from hpcc.compilers.invocation.invocation import Invocation
from hpcc_testkit.cache.compiles import run_bare

_WARNING = re.compile(rb"'([^'\n]*\.gcda)' profile count data file not found")
_GCC = [name for n in range(12, 16) if shutil.which(name := f"gcc-{n}")]
_FLAGS = [
    "-fprofile-use",
    "-fprofile-use=prof",
    "-fprofile-use=../p",
    "-fbranch-probabilities",
    "-fprofile-use -fprofile-dir=prof",
    "-fprofile-dir=prof -fprofile-use=other",
    "-fprofile-generate=g -fprofile-use",
    "-fprofile-use -flto",
    "-fprofile-use -save-temps",
]
_OUTPUTS = [
    "-c src/a.b.c",
    "-c src/a.b.c -o out/x.y.o",
    "-c src/a.b.c -o out/noext",
    "-c src/a.b.c -o ../work/x.o",
    "-c src/a.b.c -o {}/out/x.o",
    "-c {}/src/a.b.c",
    "-S src/a.b.c -o out/x.s",
]


@pytest.mark.parametrize("compiler", _GCC)
@pytest.mark.parametrize("flags", _FLAGS)
def test_gcc_looks_for_a_name_that_is_tracked(compiler: str, flags: str, tmp_path: Path) -> None:
    cwd, link = tmp_path / "work", tmp_path / "link"
    (cwd / "src").mkdir(parents=True)
    (cwd / "out").mkdir()
    link.symlink_to(cwd)
    (cwd / "src/a.b.c").write_text("int f(int x) { return x; }\n")
    for output in _OUTPUTS:
        for pwd in (cwd, link):
            argv = [*flags.split(), "-O2", *output.format(cwd).split()]
            env = {"LC_ALL": "C", "PWD": str(pwd)}
            code, _, err = run_bare([compiler, *argv], cwd=cwd, env=env)
            named = _WARNING.search(err)
            assert code == 0
            assert named is not None, err
            found = read_invocation(compiler.encode(), [a.encode() for a in argv])
            assert isinstance(found, Invocation)
            directories = (os.fsencode(cwd), os.fsencode(pwd))
            tracked = files_looked_for(found, is_clang=False, directories=directories)
            assert isinstance(tracked, tuple)
            spelled = {os.path.normpath(os.path.join(os.fsencode(cwd), n)) for n in tracked}
            assert (
                os.path.normpath(os.path.join(os.fsencode(cwd), _real(named[1], pwd, cwd)))
                in spelled
            )


def _real(name: bytes, pwd: Path, cwd: Path) -> bytes:
    """Replace the link's path with the directory's at the start of a name."""
    head = os.fsencode(pwd) + b"/"
    return os.fsencode(cwd) + b"/" + name[len(head) :] if name.startswith(head) else name
