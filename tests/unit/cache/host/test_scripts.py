"""Which shell scripts are taken for the compiler that they execute."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.host.scripts import executed_by

C99 = """#! /bin/sh
# Call the C compiler.
extra_flag=-std=c99

for i; do
    case "$i" in
        -std=c9[9x]|-std=iso9899:199[9x])
            extra_flag=
            ;;
        -std=*|-ansi)
            echo >&2 "`basename $0` called with non ISO C99 option $i"
            exit 1
            ;;
    esac
done

exec gcc $extra_flag ${1+"$@"}
"""


def _executed(
    directory: Path, text: str, *arguments: str, **env: str
) -> tuple[bytes, tuple[bytes, ...]] | None:
    script = directory / "my-gcc"
    script.write_text(text)
    script.chmod(0o755)
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("gcc", "other"):
        (programs / name).write_bytes(b"\x7fELF")
        (programs / name).chmod(0o755)
    (programs / "cached").unlink(missing_ok=True)
    (programs / "hpcc").write_bytes(b"")
    (programs / "hpcc").chmod(0o755)
    (programs / "cached").symlink_to("hpcc")
    variables = {"PATH": f"{directory}/none:{programs}", **env}
    request = CompileRequest(
        compiler=bytes(script),
        argv=(b"my-gcc", *(a.encode() for a in arguments)),
        cwd=bytes(directory),
        env={k.encode(): v.encode() for k, v in variables.items()},
        stderr_is_tty=False,
        umask=0o022,
    )
    found = executed_by(request)
    return None if found is None else (found.compiler.removeprefix(bytes(programs)), found.argv)


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ('exec gcc "$@"', "gcc -c a.c"),
        ('exec gcc -O2 -DA=1 "$@"', "gcc -O2 -DA=1 -c a.c"),
        ('  exec gcc "-O2" ${1+"$@"} -specs "/x/y.specs"', "gcc -O2 -c a.c -specs /x/y.specs"),
        ('# gcc\n\nexec "${REALGCC:-gcc}" "$@"', "gcc -c a.c"),
    ],
)
def test_a_plain_exec_is_its_command(tmp_path: Path, line: str, argv: str) -> None:
    found = _executed(tmp_path, f"#!/bin/sh\n{line}\n", "-c", "a.c")
    assert found == (b"/gcc", tuple(argv.encode().split()))


@pytest.mark.parametrize(
    "text",
    [
        '#!/bin/bash\nexec gcc "$@"\n',  # reads BASH_ENV
        '#!/bin/sh -e\nexec gcc "$@"\n',
        '#!/usr/bin/env sh\nexec gcc "$@"\n',
        '#!/bin/sh\nexec gcc "$@"',
        '#!/bin/sh\nexec gcc "$@"\nexec other "$@"\n',
        '#!/bin/sh\nset -e\nexec gcc "$@"\n',
        "#!/bin/sh\nexec gcc $@\n",
        '#!/bin/sh\nexec gcc $X "$@"\n',
        '#!/bin/sh\nexec "${CC:-gcc}" "$@"\n',
        '#!/bin/sh\nexec "${REALGCC:=gcc}" "$@"\n',
        '#!/bin/sh\nexec gcc $(cat x) "$@"\n',
        '#!/bin/sh\nexec gcc `cat x` "$@"\n',
        '#!/bin/sh\nexec gcc -D* "$@"\n',
        '#!/bin/sh\nexec gcc ~/x "$@"\n',
        '#!/bin/sh\nexec gcc {a,b} "$@"\n',
        '#!/bin/sh\nexec gcc "$@" # more\n',
        '#!/bin/sh\nexec gcc "$@"; other\n',
        '#!/bin/sh\nexec gcc "$@" >x\n',
        '#!/bin/sh\nexec gcc "$@" |other\n',
        '#!/bin/sh\nexec gcc "$@" &\n',
        '#!/bin/sh\nexec gcc \\\n"$@"\n',
        '#!/bin/sh\nexec -a x gcc "$@"\n',
        '#!/bin/sh\nX=1 exec gcc "$@"\n',
        '#!/bin/sh\nexec X=1 "$@"\n',
        '#!/bin/sh\ngcc "$@"\n',
        '#!/bin/sh\nexec bin/gcc "$@"\n',
        '#!/bin/sh\nexec nowhere "$@"\n',
        '#!/bin/sh\nexec cached "$@"\n',
        C99.replace("extra_flag=\n", "extra_flag=$X\n"),
        C99.replace("exit 1", "rm -f x; exit 1"),
        C99.replace("exec gcc", "exec gcc -x"),
        "#!/bin/sh\n" + "# long\n" * 1000 + 'exec gcc "$@"\n',
    ],
)
def test_a_script_that_may_do_more_is_none(tmp_path: Path, text: str) -> None:
    assert _executed(tmp_path, text, "-c", "a.c", X="1", CC="other") is None


def test_the_standard_of_c99_is_added_unless_it_is_given(tmp_path: Path) -> None:
    assert _executed(tmp_path, C99, "-c") == (b"/gcc", (b"gcc", b"-std=c99", b"-c"))
    for given in ("-std=c99", "-std=c9x", "-std=iso9899:199x"):
        assert _executed(tmp_path, C99, given) == (b"/gcc", (b"gcc", given.encode()))
    for refused in ("-std=gnu99", "-ansi"):
        assert _executed(tmp_path, C99, "-std=c99", refused) is None


def test_realgcc_names_another_program(tmp_path: Path) -> None:
    text = '#!/bin/sh\nexec "${REALGCC:-gcc}" "$@"\n'
    assert _executed(tmp_path, text, REALGCC="other") == (b"/other", (b"other",))
    assert _executed(tmp_path, text, REALGCC="") == (b"/gcc", (b"gcc",))
    assert _executed(tmp_path, text, REALGCC="nowhere") is None


def test_a_shell_that_would_correct_a_variable_runs(tmp_path: Path) -> None:
    text = '#!/bin/sh\nexec gcc "$@"\n'
    assert _executed(tmp_path, text, PWD=str(tmp_path)) is not None
    assert _executed(tmp_path, text, PWD="/") is None
    assert _executed(tmp_path, text, PATH="bin") is None
