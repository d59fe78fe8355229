"""Command lines of clang-cl and cl and how hpcc reads them. A changed row is a changed meaning."""

from __future__ import annotations

import pytest

from hpcc.compilers.invocation.invocation import Dialect, Invocation
from hpcc.compilers.msvc.flags import MSVC_FLAGS
from hpcc.compilers.msvc.invocation import read_msvc_invocation
from hpcc.compilers.spec.drivers import is_clang_cl
from hpcc.compilers.spec.table import Bypass, Effect

_COMPILES = [
    # argv, language, source, output
    ("/c a.c", "c", "a.c", "a.obj"),
    ("-c d/a.b.cpp", "c++", "d/a.b.cpp", "a.b.obj"),
    ("/c a.cc /Foout/", "c++", "a.cc", "out/a.obj"),
    ("/c a.cc /Foout\\", "c++", "a.cc", "out\\a.obj"),
    ("/c a.cxx /Foout/x", "c++", "a.cxx", "out/x.obj"),
    ("/c a.cxx -Fo:out/x.o", "c++", "a.cxx", "out/x.o"),
    ("/c a.c -o x", "c", "a.c", "x.obj"),
    ("/c /TP a.c /Fox.obj", "c++", "a.c", "x.obj"),
    ("/c /TC a.cpp", "c", "a.cpp", "a.obj"),
    ("/c /Tpa.c", "c++", "a.c", "a.obj"),
    ("/c /Tc a.cpp", "c", "a.cpp", "a.obj"),
    ("/c -- /src/a.c", "c", "/src/a.c", "a.obj"),
    ("/c /src/a.c", "c", "/src/a.c", "a.obj"),
    (
        "/nologo /c /DA=1 /D B /U C /I inc -Iother /external:I sys /external:W0 /FI pre.h /EHsc /MDd"
        " /O2 /Ob1 /Zc:wchar_t /std:c++20 /permissive- /W4 /WX /wd4996 /bigobj /utf-8 /arch:AVX2"
        " /fp:fast /GR- /Gy /GS- /guard:cf /RTC1 /Zp8 /showIncludes /FS /MP4 /Brepro -fcolor-diagnostics"
        " -Wno-unused -fno-strict-aliasing -mavx2 /clang:-fno-plt a.cpp /Foa.obj",
        "c++", "a.cpp", "a.obj",
    ),
    ("/c /Z7 a.c", "c", "a.c", "a.obj"),
    ("/c /FC a.c", "c", "a.c", "a.obj"),
    ("/c /Zi a.c", "c", "a.c", "a.obj"),
    ("/c /Zi /JMC /FdCMakeFiles\\x.dir\\ /FS a.c", "c", "a.c", "a.obj"),
]  # fmt: skip

_BYPASSES = [
    ("a.c", "link"),
    ("/c", "no-source"),
    ("/c a.c b.c", "multiple-sources"),
    ("/c a.obj", "linker-input"),
    ("/c a.ixx", "modules"),
    ("/c a.c /Fo", ""),
    ("/c a.c /FoNUL", "odd-output"),
    ("/c a.c -Fonul", "odd-output"),
    ("/c a.c /Foa.obj /Fob.obj", "multiple-outputs"),
    ("/c a.c /D", "missing-value"),
    ("/c a.c /ZI", "pdb"),
    ("/c a.c /Yupre.h", "pch"),
    ("/c a.c /Ycpre.h /Fpx.pch", "pch"),
    ("/c a.c /FAcs", "side-output"),
    ("/c a.c /Faa.asm", "side-output"),
    ("/c a.c /sourceDependencies x.json", "side-output"),
    ("/E a.c", "preprocess-only"),
    ("/P a.c", "preprocess-only"),
    ("/Zs a.c", "syntax-only"),
    ("/c a.c /link /OUT:x", "link"),
    ("/c a.c /Fex.exe", "link"),
    ("/c a.c /LD", "link"),
    ("/c a.c /GL", "whole-program"),
    ("/c a.c /clr:pure", "managed-code"),
    ("/c a.c /fsanitize=address", "sanitizer"),
    ("/c a.c /analyze", "analysis"),
    ("/c a.c /doc", "side-output"),
    ("/c a.cpp /interface", "modules"),
    ("/c a.c -Xclang -ast-dump", "pass-through"),
    ("/c a.c /clang:-save-temps", "pass-through"),
    # A depfile is named, and asked for once.
    *(
        (f"/c a.c {words}", "pass-through")
        for words in (
            "/clang:-MD",
            "/clang:-MMD /clang:-MTa.obj",
            "/clang:-MFx.d /clang:-MTa.obj",
            "/clang:-MD /clang:-MF",
            "/clang:-MD /clang:-MFx.d /clang:-MT",
            "/clang:-MD /clang:-MFx.d /clang:-MFy.d",
            "/clang:-MD /clang:-MMD /clang:-MFx.d",
            "/clang:-MD /clang:-MFx.d /clang:-MG",
            "/clang:-MD /clang:-MFx.d /clang:-MV",
            "/clang:-MD /clang:-MFx.d /clang:-MJy.json",
            "/clang:-M /clang:-MFx.d",
        )
    ),
    ("/c a.c /clang:-MD /clang:-MF-", "odd-output"),
    ("/c a.c /clang:-MD /clang:-MFnul", "odd-output"),
    ("/c a.c /clang:-MD /clang:-MFout\\", "odd-output"),
    *(
        (f"/c a.c /clang:{flag}", "pass-through")
        for flag in (
            "-MFx.d",
            "-fprofile-use=x",
            "-fprofile-instr-generate=x",
            "-fprofile-sample-use=x",
            "-fcoverage-mapping",
            "-ftest-coverage",
            "--coverage",
            "-fsave-optimization-record",
            "-foptimization-record-file=x",
            "-ftime-trace=x",
            "-fmodule-file=x",
            "-fmodules",
            "-fsanitize=address",
            "-fsanitize-ignorelist=x",
            "-fxray-attr-list=x",
            "-fplugin=x",
            "-fextract-api",
            "-fcas-path=x",
            "-fcrash-diagnostics-dir=x",
            "-fthinlto-index=x",
            "-gsplit-dwarf",
            "-includex.h",
            "-imacrosx",
            "-isystemx",
            "-include-pchx",
            "-save-temps",
            "-S",
            "-E",
            "-ox",
            "-dD",
            "-Wp,-MD,x",
            "-mllvm",
            "-ivfsoverlayx",
            "-working-directory=x",
            "-resource-dir=x",
            "--config=x",
            "-fbuild-session-file=x",
            "x.c",
            "@x",
        )
    ),
    ("/c a.c -fplugin=x.so", "plugin"),
    ("/c a.c -frobnicate-nothing", None),
    ("/c a.c -bogus", "unknown-flag"),
    ("/c -", "stdin"),
    ("/c a.c /I ''", None),
    ("/c /TC /Tpa.c", "language"),
    ("/c a.c /Fix.i", "side-output"),
    ("/c a.c /Fpx.pch", "pch"),
]


@pytest.mark.parametrize(("argv", "language", "source", "output"), _COMPILES)
def test_a_compile_is_read(argv: str, language: str, source: str, output: str) -> None:
    found = read_msvc_invocation([a.encode() for a in argv.split()], is_clang=True)
    assert isinstance(found, Invocation), found
    assert found.dialect is Dialect.MSVC
    assert (found.language.value.decode(), found.source.decode(), found.output.decode()) == (
        language, source, output,
    )  # fmt: skip
    assert b" ".join(found.arguments).decode() == argv.replace(" -- ", " ")


@pytest.mark.parametrize(("argv", "reason"), [b for b in _BYPASSES if b[1]])
def test_what_is_not_for_the_cache_says_why(argv: str, reason: str) -> None:
    found = read_msvc_invocation([a.encode() for a in argv.split()], is_clang=True)
    assert found == Bypass(reason)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [("/c a.c /Zi", "pdb"), ("/c a.c /unknown", "unknown-flag"), ("/c a.c -fno-plt", "unknown-flag"), ("/c a.c /clang:-g", "unknown-flag"), ("/c a.c /imsvc x", "unknown-flag")],
)  # fmt: skip
def test_cl_itself_takes_less(argv: str, reason: str) -> None:
    assert read_msvc_invocation([a.encode() for a in argv.split()], is_clang=False) == Bypass(
        reason
    )


# The issue and the documents name these flags. Each has a row in both spellings, for each compiler
# that accepts it.
_NAMED = [
    "/c",
    "/Foa.obj",
    "/Tca.c",
    "/Tpa.c",
    "/TC",
    "/TP",
    "/Ii",
    "/external:Ii",
    "/DA",
    "/UA",
    "/FIh.h",
    "/Z7",
    "/Zc:inline",
    "/std:c11",
    "/O2",
    "/Od",
    "/MD",
    "/MDd",
    "/MT",
    "/MTd",
    "/MP",
    "/MP4",
    "/FS",
    "/Fdx.pdb",
    "/showIncludes",
]
_REFUSED = [
    "/Fix.i",
    "/Faa.asm",
    "/Fpx.pch",
    "/Yc",
    "/Ych.h",
    "/Yu",
    "/Yuh.h",
    "/ZI",
    "/link",
    "/sourceDependencies:x.json",
]


@pytest.mark.parametrize("argument", [*_NAMED, *_REFUSED, "/Zi"])
def test_each_flag_that_users_know_has_a_row(argument: str) -> None:
    for is_clang in (False, True):
        row = MSVC_FLAGS.find(argument[1:].encode(), is_clang=is_clang)
        assert row is not None
        assert row.source
        assert (row.effect in {Effect.REFUSE, Effect.SIDE_OUTPUT}) == (argument in _REFUSED)
        said = [
            read_msvc_invocation(
                [b"/c", dash + argument[1:].encode(), *([] if "/T" in argument[:2] and ".c" in argument else [b"a.c"])],
                is_clang=is_clang,
            )
            for dash in (b"/", b"-")
        ]  # fmt: skip
        assert type(said[0]) is type(said[1])
        is_kept = argument in _NAMED or (is_clang and argument not in _REFUSED)
        assert isinstance(said[0], Invocation) == is_kept, said


@pytest.mark.parametrize(
    ("argument", "is_kept"),
    [
        ("/sourceDependencies x.json", True), ("-sourceDependenciesC:\\o\\X.JSON", True),
        ("/sourceDependencies-", False), ("/sourceDependencies out\\", False),
        ("/sourceDependencies:directives", False), ("/sourceDependencies out", False),
        ("/sourceDependencies a.json /sourceDependencies b.json", False),
    ],
)  # fmt: skip
def test_a_report_is_an_output_of_cl_where_it_is_a_file(argument: str, is_kept: bool) -> None:
    argv = [a.encode() for a in f"/c a.c {argument}".split()]
    found = read_msvc_invocation(argv, is_clang=False)
    assert isinstance(found, Invocation) if is_kept else found == Bypass("side-output")
    assert read_msvc_invocation(argv, is_clang=True) == Bypass("side-output")


def test_search_directories_and_forced_includes_are_known() -> None:
    argv = b"/c /I a /imsvcb -external:I c /FIp.h /FI q.h x.c".split()
    found = read_msvc_invocation(argv, is_clang=True)
    assert isinstance(found, Invocation)
    assert found.include_dirs == (b"a", b"b", b"c")
    assert found.forced_includes == (b"p.h", b"q.h")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"/usr/bin/clang-cl", True), (b"clang-cl-19", True), (b"CLANG-CL.EXE", True), (b"C:\\LLVM\\bin\\clang-cl.exe", True),
        (b"icx-cl", True), (b"cl", False), (b"C:\\VC\\cl.exe", False), (b"clang", None), (b"mycl", None), (b"gcc", None),
    ],
)  # fmt: skip
def test_programs_are_known_by_name(program: bytes, expected: bool | None) -> None:
    assert is_clang_cl(program) is expected


@pytest.mark.parametrize(
    ("words", "mode", "depfile"),
    [
        # What CMake passes to clang-cl since 4.
        ("-clang:-MD -clang:-MTd\\a.c.obj -clang:-MFd\\a.c.obj.d", "-MD", "d\\a.c.obj.d"),
        ("/clang:-MFx.d /clang:-MMD /clang:-MP /clang:-MQx", "-MMD", "x.d"),
        ("", "none", None),
    ],
)
def test_a_depfile_behind_clang_is_read(words: str, mode: str, depfile: str | None) -> None:
    argv = [*words.split(), "/c", "--", "a.c"]
    found = read_msvc_invocation([a.encode() for a in argv], is_clang=True)
    assert isinstance(found, Invocation), found
    name = None if found.depfile is None else found.depfile.decode()
    assert (found.dep_mode.value, name) == (mode, depfile)
    # cl has no such flags.
    if words:
        assert isinstance(read_msvc_invocation([a.encode() for a in argv], is_clang=False), Bypass)
