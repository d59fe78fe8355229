"""The flag table, asked of the real compilers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.compilers import GNU_FLAGS, Effect, FlagSpec, Invocation, read_invocation
from hpcc.testing.compiles import run_bare

# A value that makes sense; the rest of the rows take none, or any name.
_VALUES = {
    "-o": "out.o",
    "-x": "c",
    "-I": "inc",
    "-iquote": "inc",
    "-isystem": "inc",
    "-idirafter": "inc",
    "-include": "h.h",
    "-imacros": "h.h",
    "-isysroot": "/",
    "--sysroot=": "/",
    "--sysroot": "/",
    "-stdlib=": "libstdc++",
    "--target=": "x86_64-linux-gnu",
    "-target": "x86_64-linux-gnu",
    "--gcc-toolchain=": "/usr",
    "-MF": "x.d",
    "-MT": "t",
    "-MQ": "t",
    "-D": "A=1",
    "-U": "A",
    "-std=": "c11",
    "--std=": "c11",
    "-Wp,": "-DA",
    "-Wa,": "--noexecstack",
    "-f": "PIC",
    "-W": "all",
    "-O": "1",
    "-g": "",
    "-m": "64",
    "--param": "max-inline-insns-auto=9",
    "--param=": "max-inline-insns-auto=9",
    "-fdiagnostics-color": "=never",
    "-fno-diagnostics-color": "",
    "-fcolor-diagnostics": "",
    "-fno-color-diagnostics": "",
    "-l": "m",
    "-L": ".",
    "-z": "now",
    "-Wl,": "-O1",
    "-Xlinker": "-O1",
}
_CLANG_ONLY = {
    "-stdlib=",
    "--target=",
    "-target",
    "--gcc-toolchain=",
    "-Qunused-arguments",
    "-fcolor-diagnostics",
    "-fno-color-diagnostics",
    "-nopie",
    "--save-temps=obj",
    "--save-temps=cwd",
    "-gsplit-dwarf=split",
    "-gsplit-dwarf=single",
    "-fprofile-instr-generate",
}
_GCC_ONLY = {
    "-fprofile-abs-path",
    "-p",
    "-nopie",
    "-fdiagnostics-plain-output",
    "-traditional-cpp",
    "-remap",
    "-pthreads",
    "--param",
    "--param=",
    "-shared-libgcc",
}
_NOWHERE = {"-pthreads"}  # other targets than Linux
_ROWS = [r for r in GNU_FLAGS.rows if r.effect is not Effect.REFUSE]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("row", _ROWS, ids=lambda r: r.spelling)
def test_the_compiler_reads_the_row_as_the_table_does(
    compiler: str, row: FlagSpec, tmp_path: Path
) -> None:
    if row.spelling in (_CLANG_ONLY if compiler == "gcc" else _GCC_ONLY) | _NOWHERE:
        pytest.skip(f"{compiler} has no {row.spelling}")
    (tmp_path / "a.c").write_text("int i;\n")
    (tmp_path / "h.h").write_text("#define B 1\n")
    (tmp_path / "inc").mkdir()
    value = _VALUES.get(row.spelling, "").encode()
    for argv, expected in row.spellings(value):
        extra = [b"-MD"] if row.spelling in {"-MF", "-MT", "-MQ", "-MP"} else []
        mode = [] if row.spelling == "-S" else [b"-c"]
        full = [compiler.encode(), *argv, *extra, *mode, b"a.c"]
        code, _, err = run_bare(full, cwd=tmp_path)
        assert code == 0, (full, err)
        found = read_invocation(full[0], full[1:])
        assert isinstance(found, Invocation), full
        assert any(f.spec is row and f.value == expected for f in found.flags)
        assert (tmp_path / found.output.decode()).exists()
        if found.depfile is not None:
            assert (tmp_path / found.depfile.decode()).exists()


@pytest.mark.parametrize(
    ("compiler", "flags", "extra"),
    [
        ("gcc", "-fcallgraph-info", ".ci"),
        ("gcc", "-fdump-tree-optimized", ".optimized"),
        ("clang", "-ftime-trace", ".json"),
        ("clang", "-MJ cdb", "cdb"),
        ("clang", "-fsave-optimization-record", ".yaml"),
    ],
)
def test_refused_flags_really_write_more_files(
    compiler: str, flags: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    argv = [compiler, *flags.split(), "-O1", "-c", "a.c"]
    assert run_bare(argv, cwd=tmp_path)[0] == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(extra)]
    assert not isinstance(
        read_invocation(argv[0].encode(), [a.encode() for a in argv[1:]]), Invocation
    )
