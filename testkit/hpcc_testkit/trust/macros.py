"""Scenarios of macros that change without the text: by the command line, and by pragmas of GCC.

Command lines differ in `-D` and `-U` only, read by a file or by none. Pragmas define macros in
GCC's compiles and not in its preprocessor's runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, copy, step, write

_COMPILERS: Final = ("gcc-12", "gcc-14", "clang-19")
_PLAIN: Final = "int value(void) { return 3; }\n"
_PASTE: Final = "#define CAT(a, b) CAT2(a, b)\n#define CAT2(a, b) a##b\n"
# By name: the definition of the second compile, and a source in which it does something.
_READ: Final = {
    "asked": ("-Dlib_EXPORTS", "#ifdef lib_EXPORTS\nint other;\n#endif\n"),
    "expanded": ("-Dlib_V=4", "enum { first = 3 };\nint v = lib_V;\n"),
    "undefined": ("-Ulib_V -Dlib_W=3", "int lib_W;\n"),
    "pasted": ("-Dlib_V=other", f"{_PASTE}int CAT(lib, _V);\n"),
    "pasted-from-three": ("-Dlib_V=other", f"{_PASTE}int CAT(CAT(lib, _), V);\n"),
    "pasted-with-a-line": ("-DV_4=a -DV_5=b -DV_6=c -DV_7=d", f"{_PASTE}int CAT(V_,\n__LINE__);\n"),
    "pasted-with-a-counter": ("-DV_0A=other", f"{_PASTE}int CAT(CAT(V_, __COUNTER__), A);\n"),
    "pasted-with-a-type": ("-DV_int=other", f"{_PASTE}int CAT(V_, __WCHAR_TYPE__);\n"),
    "pasted-by-digraphs": ("-Dlib_V=other", "%:define D(a) lib_ %:%: a\nint D(V);\n"),
    "joined-lines": ("-Dlib_V=other", "int lib\\\n_V;\n"),
    "joined-by-a-trigraph": ("-trigraphs -Dlib_V=other", "int lib??/\n_V;\n"),
    "restored": ("-Dlib_V=other", '#pragma push_macro("lib_V")\n#undef lib_V\n'
                 '#pragma pop_macro("lib_V")\nint lib_V;\n'),
    "through-another": ("-Dlib_V=other -DONE=lib_V", "int ONE;\n"),
    "behind-a-dollar": ("-fno-dollars-in-identifiers -Dlib_V=4", "#define S2(x) #x\n"
                        "#define S(x) S2(x)\nconst char *v = S($lib_V);\n"),
    "included": ("-DNAME_H=<errno.h>", "#include NAME_H\nint e = EINTR;\n"),
}  # fmt: skip
_FIRST: Final = {
    "joined-by-a-trigraph": "-trigraphs",
    "through-another": "-DONE=lib_V",
    "behind-a-dollar": "-fno-dollars-in-identifiers -Dlib_V=3",
    "included": "-DNAME_H=<signal.h> -DEINTR=7",
    "undefined": "-Dlib_V=4",
    "expanded": "-Dlib_V=first",
}
# Definitions that no file reads.
_UNREAD: Final = (
    "-Dlib_EXPORTS",
    "-D lib_EXPORTS=1",
    "-Dlib_EXPORTS=a.b",
    '-DVERSION_TEXT=\\"1.2/x\\"',
    "-Ulib_EXPORTS",
    "-DONE_A -DTWO_B=2 -UTHREE_C",
)
# Definitions that show although no file reads them, or that could.
_SHOWN: Final = (
    "-g3 -Dlib_EXPORTS",
    "-ggdb3 -Dlib_EXPORTS",
    "-Dlib_EXPORTS=1 -Dlib_EXPORTS=2",
    "-Dlib_EXPORTS=#",
    "-Dlib_EXPORTS=\\'",
    "-Dlinux=2",
    "-D__linux__=2",
    "-DCONST=__VA_ARGS__",
)


def _read(cc: str, name: str, definition: str, text: str) -> Iterator[Scenario]:
    first = _FIRST.get(name, "")
    header = write("inc/m.h", text)
    main = write("main.c", f"#include <stdio.h>\n{_PLAIN}{text}")
    by_header = write("main.c", f'#include <stdio.h>\n#include "m.h"\n{_PLAIN}')
    for place, edits in (("source", (main,)), ("header", (header, by_header))):
        yield _differing(cc, f"macro-{name}-in-the-{place}", first, definition, edits)


def _differing(
    cc: str, name: str, first: str, second: str, edits: tuple[Edit, ...], expect: str = "nohit"
) -> Scenario:
    rest = "-Iinc -O1 -c main.c -o"
    return Scenario(
        name=f"{name}-{cc}",
        steps=(
            step(f"{cc} {first} {rest} one.o", "any", *edits),
            step(f"{cc} {second} {rest} two.o", expect),
            step(f"{cc} {first} {rest} one.o", "any"),
        ),
    )


def _unread(cc: str, number: int, definition: str) -> Iterator[Scenario]:
    text = "#define EXPORTS 7\n" + _PLAIN
    edits = (
        write("main.c", f'#include <assert.h>\n#include <stdio.h>\n#include "m.h"\n{text}'),
        write("inc/m.h", "#define M 1\n"),
    )
    yield _differing(cc, f"macro-unread-{number}", "-DOTHER_ONE=7", definition, edits, "hit")
    command = f"{cc} {definition} -Iinc -c main.c -o"
    yield Scenario(
        name=f"macro-becomes-read-{number}-{cc}",
        steps=(
            step(f"{cc} -Iinc -c main.c -o one.o", "any", *edits),
            step(f"{command} two.o", "hit"),
            step(f"{command} three.o", "nohit", write("inc/m.h", "#if lib_EXPORTS + ONE_A\n#endif\n"
                 "#ifndef VERSION_TEXT\nint m;\n#endif\n")),
            step(f"{cc} -Iinc -c main.c -o four.o", "any"),
        ),
    )  # fmt: skip


def _in_assembler(cc: str) -> Iterator[Scenario]:
    """Yield constants of an assembler source: there `$` begins an operand and no name."""
    for name, text in {
        "behind-a-dollar": "movl $STACK_SIZE, %eax",
        "behind-a-minus": "movl $-STACK_SIZE, %eax",
        "in-brackets": "movl $(STACK_SIZE+1), %eax",
        "before-a-dollar": "#define S $STACK_SIZE\nmovl S, %eax",
        "pasted-behind-a-dollar": "#define S(x) STACK_##x\nmovl $S(SIZE), %eax",
    }.items():
        rest = "-c main.S -o"
        yield Scenario(
            name=f"macro-in-assembler-{name}-{cc}",
            steps=(
                step(f"{cc} -DSTACK_SIZE=16 {rest} one.o", "miss", write("main.S", text + "\n")),
                step(f"{cc} -DSTACK_SIZE=32 {rest} two.o", "nohit"),
                step(f"{cc} -DSTACK_SIZE=16 {rest} three.o", "hit"),
            ),
        )


def _messages(cc: str) -> Iterator[Scenario]:
    """Yield a message that offers the name of a macro that no file reads."""
    text = "int f(void) { return lib_EXPORT(); }\n"
    edits = (write("main.c", text),)
    flags = "-std=gnu89 -Wall -Wno-error"
    yield _differing(cc, "macro-in-a-hint", flags, f"{flags} -Dlib_EXPORTS=4", edits)


_GCC: Final = ("gcc-12", "gcc-14", "g++")
_FORMS: Final = {
    "optimize": ('#pragma GCC optimize("O3")\n', "__OPTIMIZE__"),
    "optimize-by-a-number": ("#pragma GCC optimize 3\n", "__OPTIMIZE__"),
    "target": ('#pragma GCC target("avx2")\n', "__AVX2__"),
    "operator": ('_Pragma("GCC target(\\"avx2\\")")\n', "__AVX2__"),
    "over-two-files": ('#include "do.h"\nDO(GCC optimize("O3"))\n', "__OPTIMIZE__"),
    "split": ('#pragma GCC opt\\\nimize/* why */("O3")\n', "__OPTIMIZE__"),
}
_DO: Final = write("do.h", "#define DO(x) _Pragma(#x)\n")


def _nothing(data: bytes) -> bytes:
    """Return b"" for an object, which holds a clock."""
    return b"" if data.startswith(b"\x7fELF") else data


def _hidden(cc: str, name: str, pragma: str, macro: str) -> Iterator[Scenario]:
    header = f"{pragma}#ifdef {macro}\n#include <v.h>\n#else\n#define V 0\n#endif\nint value = V;\n"
    # g++ 12 reads a whole file before it obeys a pragma, and takes the other branch, too.
    edited = "any" if cc == "g++" else "nohit"
    for flags in ("-g -MMD", "-MMD", "-g -MD", ""):
        command = f"{cc} {flags} -I. -isystem sys -c main.c -o main.o"
        yield Scenario(
            name=f"header-behind-a-pragma-{name}{flags.replace(' ', '')}-{cc}",
            steps=(
                step(command, "miss", _DO, write("main.c", header),
                     write("sys/v.h", "#define V 1\n")),
                step(command, "hit"),
                step(command, edited, write("sys/v.h", "#define V 2\n")),
            ),
        )  # fmt: skip
    clock = f"{pragma}#ifdef {macro}\nextern const char c[];\nconst char c[] = {{__TIME__[7]}};\n"
    command = f"{cc} -I. -c main.c -o main.o"
    yield Scenario(
        name=f"clock-behind-a-pragma-{name}-{cc}",
        steps=(
            step(command, edited, _DO, write("main.c", clock + "#endif\n")),
            step(command, edited),
        ),
        mask=_nothing,
    )
    unused = f"{pragma}#define NEVER __TIME__\n#ifdef {macro}\nint value = 1;\n#endif\n"
    yield Scenario(
        name=f"clock-beside-a-pragma-{name}-{cc}",
        steps=(
            step(command, "miss", _DO, write("main.c", unused)),
            step(command, "hit"),
            step(command, "nohit", write("main.c", unused + "const char *c = NEVER;\n")),
            step(command, "nohit"),
        ),
        mask=_nothing,
    )
    size = f"{pragma}#ifdef {macro}\nint value = sizeof(__FILE__);\n#endif\n"
    yield Scenario(
        name=f"name-behind-a-pragma-{name}-{cc}",
        steps=(
            step(f"{cc} -I.. -c %ROOT%/one/main.c -o main.o", "miss", _DO,
                 write("one/main.c", size), copy("one", "another"), cwd="one"),
            step(f"{cc} -I.. -c %ROOT%/another/main.c -o main.o", "any", cwd="another"),
        ),
    )  # fmt: skip


def _unseen(cc: str) -> Iterator[Scenario]:
    """Yield clocks of which no warning tells, behind a pragma."""
    used = "#ifdef __AVX2__\nextern const char c[];\nconst char c[] = {__TIME__[7]};\n#endif\n"
    pragma = '#pragma GCC target("avx2")\n'
    quiet = '#pragma GCC diagnostic ignored "-Wdate-time"\n'
    for name, flags, text in (
        ("no-warnings", "-w", pragma + used),
        ("no-warnings-for-the-preprocessor", "-Wp,-w", pragma + used),
        ("not-this-warning", "-Wno-date-time", pragma + used),
        ("pragma", "", pragma + quiet + used),
        ("pragma-with-an-escape", "", pragma + quiet.replace("Wd", "W\\144") + used),
        ("specs", "-specs=quiet.specs", pragma + used),
        ("header-of-the-system", "-isystem sys", pragma + "#include <v.h>\n"),
    ):
        command = f"{cc} {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"clock-behind-a-pragma-without-a-warning-{name}-{cc}",
            steps=(
                step(command, "nohit", write("main.c", text), write("sys/v.h", used),
                     write("quiet.specs", "*cc1:\n+ -w\n\n")),
                step(command, "nohit"),
            ),
            mask=_nothing,
        )  # fmt: skip


def _beside_no_compiler(cc: str) -> Iterator[Scenario]:
    """Yield a header in a directory of the project that is named like one of GCC's."""
    used = "#ifdef __AVX2__\nextern const char c[];\nconst char c[] = {__TIME__[7]};\n#endif\n"
    home = "lib/gcc/x86_64-linux-gnu/12/include"
    command = f"{cc} -I{home} -c main.c -o main.o"
    yield Scenario(
        name=f"clock-behind-a-pragma-in-a-directory-like-the-compilers-{cc}",
        steps=(
            step(command, "nohit", write("main.c", "#include <wide.h>\n" + used),
                 write(f"{home}/wide.h", '#pragma GCC target("avx2")\n')),
            step(command, "nohit"),
        ),
        mask=_nothing,
    )  # fmt: skip


def _by_pragmas() -> Iterator[Scenario]:
    for cc in _GCC:
        for name, (pragma, macro) in _FORMS.items():
            yield from _hidden(cc, name, pragma, macro)
    for cc in ("gcc-12", "gcc-14"):
        yield from _unseen(cc)
        yield from _beside_no_compiler(cc)


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in _COMPILERS:
        for name, (definition, text) in _READ.items():
            yield from _read(cc, name, definition, text)
        for number, definition in enumerate(_UNREAD):
            yield from _unread(cc, number, definition)
        for number, definition in enumerate(_SHOWN):
            edits = (write("main.c", _PLAIN),)
            level = definition.split()[0] if definition.startswith("-g") else ""
            yield _differing(cc, f"macro-that-shows-{number}", level, definition, edits)
        yield from _in_assembler(cc)
        yield from _messages(cc)
    yield from _by_pragmas()
