"""Scenarios of files read as data: by assembler directives in every spelling, and by #embed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import (
    Edit,
    Scenario,
    copy,
    delete,
    link,
    mkdir,
    step,
    write,
    write_keeping_times,
)

_BLOBS: Final = (write("blob", "one"), write("more.s", ".data\n.byte 1\n"))
_CHANGED: Final = (write("blob", "two"), write("more.s", ".data\n.byte 2\n"))

# Every way to make `.incbin "blob"` that a preprocessor, a string and an assembler offer.
_SPELLINGS: Final = {
    "literal": '__asm__(".data\\n.incbin \\"blob\\"\\n");\n',
    "capitals": '__asm__(".data\\n.InCbIn \\"blob\\"\\n");\n',
    "two-strings": '__asm__(".data\\n.inc" "bin \\"blob\\"\\n");\n',
    "six-strings": '__asm__(".data\\n." "i" "n" "c" "bi" "n \\"blob\\"\\n");\n',
    "octal": '__asm__(".data\\n.\\151ncbin \\"blob\\"\\n");\n',
    "hexadecimal": '__asm__(".data\\n.in\\x63" "bin \\"blob\\"\\n");\n',
    "name-in-pieces": '__asm__(".data\\n.incbin \\"bl" "ob\\"\\n");\n',
    "name-by-a-macro": '#define F "blob"\n__asm__(".data\\n.incbin \\"" F "\\"\\n");\n',
    "stringized": '#define S_(x) #x\n#define S(x) S_(x)\n__asm__(".data\\n" S(.incbin "blob"));\n',
    "pasted": (
        "#define S_(x) #x\n#define S(x) S_(x)\n#define P(a, b) a##b\n"
        '__asm__(".data\\n" S(.P(inc, bin) "blob"));\n'
    ),
    "text-by-a-macro": (
        '#define T ".inc"\n#define U "bin"\n__asm__(".data\\n" T U " \\"blob\\"");\n'
    ),
    "statement-by-a-macro": (
        '#define EMIT(x) __asm__(x)\n#define D(x) ".data\\n.inc" #x " \\"blob\\""\nEMIT(D(bin));\n'
    ),
    "keyword-by-a-macro": '#define A __asm__\nA(".data\\n.i" "ncb" "in \\"blob\\"\\n");\n',
    "keyword-pasted": '#define A as##m\n__extension__ A(".data\\n.i" "ncb" "in \\"blob\\"\\n");\n',
    "keyword-pasted-by-a-macro": (
        "#define P_(a, b) a##b\n#define P(a, b) P_(a, b)\n"
        'P(__as, m__)(".data\\n.i" "ncb" "in \\"blob\\"\\n");\n'
    ),
    "assembler-macro": (
        '__asm__(".data\\n.macro m x\\n.inc\\\\x \\"blob\\"\\n.endm\\nm bin\\n");\n'
    ),
    "assembler-macro-whole": (
        '__asm__(".data\\n.macro m x\\n\\\\x \\"blob\\"\\n.endm\\nm .incbin\\n");\n'
    ),
    "assembler-macro-two-pieces": (
        '__asm__(".data\\n.macro m x y\\n\\\\x\\\\y \\"blob\\"\\n.endm\\nm .in, cbin\\n");\n'
    ),
    "irp": '__asm__(".data\\n.irp x, bin\\n.inc\\\\x \\"blob\\"\\n.endr\\n");\n',
    "operand": (
        "int bin;\nvoid f(void) {\n"
        '__asm__(".pushsection .data\\n.inc%c0 \\"blob\\"\\n.popsection" :: "i"(&bin));\n}\n'
    ),
    "in-a-function": (
        "void f(void) {\n"
        '__asm__ volatile(".pushsection .data\\n.inc" "bin \\"blob\\"\\n.popsection\\n"\n'
        '::: "memory");\n}\n'
    ),
    "include": '__asm__(".include \\"more.s\\"\\n");\n',
    "include-in-pieces": '__asm__(".incl" "ude \\"mo" "re.s\\"\\n");\n',
}
_ONLY_GCC: Final = {
    "section-name": ('__attribute__((section(".data\\n.incbin \\"blob\\"\\n#"))) int here = 1;\n'),
}
_ONLY_CXX: Final = {
    "raw-string": '__asm__(R"(.data\n.inc)" R"x(bin "blob"\n)x");\n',
}
_ASSEMBLER: Final = {
    "literal": '.data\n.incbin "blob"\n',
    "include": '.include "more.s"\n',
    "preprocessor-macro": '#define INC .incbin\n.data\nINC "blob"\n',
    "preprocessor-paste": '#define P(a, b) a##b\n.data\n.P(inc, bin) "blob"\n',
    "assembler-macro": '.data\n.macro m x\n.inc\\x "blob"\n.endm\nm bin\n',
    "assembler-macro-in-pieces": '.data\n.macro m x, y\n\\x\\y "blob"\n.endm\nm .inc, bin\n',
    "irpc-like": (
        '.data\n.macro m a b c d e f g\n\\a\\b\\c\\d\\e\\f\\g "blob"\n.endm\n'
        "m ., i, n, c, b, i, n\n"
    ),
}
_PLAIN_ASSEMBLER: Final = {
    **{name: text for name, text in _ASSEMBLER.items() if "preprocessor" not in name},
    "statement-in-an-argument": (
        '.data\n.macro m w x y z\nnop \\w\\x\\y\\z "blob"\n.endm\nm "; ", ".", "inc", "bin"\n'
    ),
    "alternative-macros": '.data\n.altmacro\n.macro m name\n.incbin "name"\n.endm\nm blob\n',
}


def _changes(name: str, command: str, source: Edit, *, hits: bool) -> Scenario:
    """Return a scenario in which a file that no header list names changes, and changes back."""
    again = "hit" if hits else "nohit"
    return Scenario(
        name=name,
        steps=(
            step(command, "miss", source, *_BLOBS),
            step(command, again),
            step(command, "nohit", *_CHANGED),
            step(command, again),
            step(command, "nohit", write_keeping_times("blob", "six"),
                 write_keeping_times("more.s", ".data\n.byte 3\n")),
            step(command, again, *_CHANGED),
        ),
    )  # fmt: skip


def _spellings() -> Iterator[Scenario]:
    # Clang expands these macros internally, so hpcc keeps a result only if the name is literal.
    opaque = {n for n in _SPELLINGS if n.startswith(("assembler-macro", "irp", "operand"))}
    for cc in ("gcc", "clang", "clang-19"):
        for name, text in {**_SPELLINGS, **(_ONLY_GCC if cc == "gcc" else {})}.items():
            if (name, cc) == ("operand", "clang"):
                continue  # refuses such an operand
            yield _changes(
                f"data-{name}-{cc}",
                f"{cc} -fno-pic -c main.c -o main.o",
                write("main.c", text),
                hits=cc == "gcc" or name not in opaque,
            )
    for cc in ("g++", "clang++"):
        for name in ("six-strings", "octal"):
            source = write("main.cc", _SPELLINGS[name])
            yield _changes(f"data-{name}-{cc}", f"{cc} -c main.cc -o main.o", source, hits=True)
        for name, text in _ONLY_CXX.items():
            source = write("main.cc", text)
            yield _changes(f"data-{name}-{cc}", f"{cc} -c main.cc -o main.o", source, hits=True)
    for cc, flag in (("gcc", "-flto -ffat-lto-objects"), ("clang", "-flto"), ("gcc", "-pipe")):
        for name in ("literal", "six-strings", "stringized"):
            # Slim LTO objects keep the statement; it does not matter here whether it is followed.
            yield _changes(
                f"data-{name}-{flag.partition(' ')[0]}-{cc}",
                f"{cc} {flag} -frandom-seed=1 -c main.c -o main.o" if cc == "gcc"
                else f"{cc} {flag} -c main.c -o main.o",
                write("main.c", _SPELLINGS[name]),
                hits=True,
            ) if "lto" not in flag or cc == "gcc" else _lto(cc, flag, name)  # fmt: skip


def _lto(cc: str, flag: str, name: str) -> Scenario:
    command = f"{cc} {flag} -c main.c -o main.o"
    return Scenario(
        name=f"data-{name}{flag}-{cc}",
        steps=(
            step(command, "any", write("main.c", _SPELLINGS[name]), *_BLOBS),
            step(command, "any"),
            step(command, "any", *_CHANGED),
        ),
    )


def _unlisted() -> Iterator[Scenario]:
    """Yield scenarios of directives in a section's name, where as does not list its files."""
    pieces = '__attribute__((section(".data\\n.inc" "bin \\"blob\\"\\n#"))) int here = 1;\n'
    for name, flags in (("lto", "-flto -ffat-lto-objects -frandom-seed=1"), ("programs", "-B.")):
        yield _changes(
            f"data-section-name-in-pieces-{name}-gcc",
            f"gcc {flags} -c main.c -o main.o",
            write("main.c", pieces),
            hits=False,
        )
        text = '__attribute__((section(".data.mine"))) int here = 1;\n'
        command = f"gcc {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"section-name-{name}-gcc",
            steps=(step(command, "miss", write("main.c", text)), step(command, "hit")),
        )


def _other_ways() -> Iterator[Scenario]:
    """Yield scenarios of an external assembler, of no assembler, and of options for the output."""
    for cc, flags, hits in (
        ("clang", "-fno-integrated-as", True),
        ("clang-19", "-fno-integrated-as -g", True),
        ("gcc", "-g3 -gsplit-dwarf -fstack-usage", True),
        ("gcc", "-save-temps", True),
        ("gcc", "-save-temps=obj -pipe", True),
        ("gcc", "-O2 -g -gz -ffunction-sections -Wa,--noexecstack", True),
        ("gcc-14", "-g -fdebug-prefix-map=%ROOT%=.", True),
    ):
        for name in ("six-strings", "include-in-pieces"):
            yield _changes(
                f"data-{name}-{'-'.join(f.strip('-=%.,/') for f in flags.split())}-{cc}".replace(
                    "%ROOT%", "root"
                ),
                f"{cc} {flags} -c main.c -o main.o",
                write("main.c", _SPELLINGS[name]),
                hits=hits,
            )
    for cc in ("gcc", "clang"):
        command = f"{cc} -S main.c -o main.s"
        yield Scenario(
            name=f"data-and-assembly-as-output-{cc}",
            steps=(
                step(command, "miss", write("main.c", _SPELLINGS["six-strings"]), *_BLOBS),
                step(command, "hit"),
                step(command, "any", *_CHANGED),
                step(command, "any"),
            ),
        )


def _assembler() -> Iterator[Scenario]:
    for cc in ("gcc", "clang"):
        for name, text in _ASSEMBLER.items():
            is_opaque = cc == "clang" and name.startswith(("assembler-macro", "irp"))
            yield _changes(
                f"assembler-data-{name}-{cc}",
                f"{cc} -c low.S -o low.o",
                write("low.S", text),
                hits=not is_opaque,
            )
        command = f"{cc} -g -Ifirst -Iinc -c low.S -o low.o"
        yield Scenario(
            name=f"assembler-data-appears-earlier-{cc}",
            steps=(
                step(command, "miss", write("low.S", '.data\n.incbin "sub/blob"\n'),
                     write("inc/sub/blob", "one"), mkdir("first")),
                step(command, "hit"),
                step(command, "nohit", write("first/sub/blob", "two")),
                step(command, "hit"),
                step(command, "nohit", write("sub/blob", "three")),
                # The directory `sub` exists now and did not before: a miss is safe, a hit is right.
                step(command, "any", delete("sub/blob")),
                step(command, "any", delete("first/sub/blob")),
                step(command, "nohit", delete("inc/sub/blob")),
            ),
        )  # fmt: skip
        command = f"{cc} -Iinc -c src/main.c -o main.o"
        yield Scenario(
            name=f"data-in-a-search-directory-{cc}",
            steps=(
                step(command, "miss", write("src/main.c", _SPELLINGS["literal"]),
                     write("inc/blob", "one"), write("src/blob", "not here")),
                step(command, "hit"),
                step(command, "nohit", write("blob", "two")),
                step(command, "nohit", delete("blob"), write("inc/blob", "three")),
            ),
        )  # fmt: skip
        nested = write("more.s", '.data\n.include "deep.s"\n')
        command = f"{cc} -c main.c -o main.o"
        yield Scenario(
            name=f"data-included-twice-over-{cc}",
            steps=(
                step(command, "miss", write("main.c", _SPELLINGS["include"]), nested,
                     write("deep.s", '.incbin "blob"\n'), write("blob", "one")),
                step(command, "hit"),
                step(command, "nohit", write("blob", "two")),
            ),
        )  # fmt: skip
        yield Scenario(
            name=f"data-behind-a-link-{cc}",
            steps=(
                step(command, "miss", write("main.c", _SPELLINGS["six-strings"]),
                     write("blob1", "one"), write("blob2", "two"), link("blob1", "blob")),
                step(command, "hit"),
                step(command, "nohit", link("blob2", "blob")),
            ),
        )  # fmt: skip
        if cc == "clang":  # GNU as refuses it
            source = write("main.c", '__asm__(".incbin \\"/dev/null\\"\\n");\n')
            yield Scenario(
                name=f"data-from-a-device-{cc}",
                steps=(step(command, "miss", source), step(command, "hit")),
            )
    # `.file` puts the source's name into the assembler's list, although no such file was read.
    command = "gcc -g -c src/main.c -o main.o"
    yield Scenario(
        name="data-and-a-source-elsewhere",
        steps=(
            step(command, "miss", write("src/main.c", '#line 3 "nowhere.y"\nint v;\n')),
            step(command, "hit"),
            step(command, "any", write("main.c", "other")),
            step(command, "any"),
        ),
    )
    for cc in ("gcc", "clang"):
        text = '/* no asm here: ".incbin" */ const char *s = "asm (x)";\nint v;\n'
        command = f"{cc} -c main.c -o main.o"
        yield Scenario(
            name=f"data-only-spoken-of-{cc}",
            steps=(step(command, "miss", write("main.c", text)), step(command, "hit")),
        )
        text = '#define OP "nop"\nvoid f(void) { __asm__ volatile(OP); }\nint g __asm__("h");\n'
        yield Scenario(
            name=f"harmless-asm-{cc}",
            steps=(step(command, "miss", write("main.c", text)), step(command, "hit")),
        )


def _plain_assembler() -> Iterator[Scenario]:
    """Yield scenarios of sources that no preprocessor reads, in one place and in two."""
    for cc in ("gcc", "clang-19"):
        for name, text in _PLAIN_ASSEMBLER.items():
            yield _changes(
                f"plain-assembler-data-{name}-{cc}",
                f"{cc} -c low.s -o low.o",
                write("low.s", text),
                hits=cc == "gcc" or name in {"literal", "include"},
            )
        command = f"{cc} -Ifirst -Iinc -c low.s -o low.o"
        project = (
            write("one/low.s", '.data\n.include "more.inc"\n'),
            write("one/inc/more.inc", '.incbin "sub/blob"\n'),
            write("one/inc/sub/blob", "one"),
            mkdir("one/first/sub"),
        )
        yield Scenario(
            name=f"plain-assembler-in-two-places-{cc}",
            steps=(
                step(command, "miss", *project, cwd="one"),
                step(command, "hit", copy("one", "two"), cwd="two"),
                step(command, "nohit", write("two/inc/sub/blob", "two"), cwd="two"),
                step(command, "nohit", write("two/inc/more.inc", ".byte 1\n"), cwd="two"),
                step(command, "nohit", write("two/low.s", ".data\n.byte 2\n"), cwd="two"),
                step(command, "nohit", copy("one", "three"),
                     write("three/first/more.inc", ".byte 3\n"), cwd="three"),
                step(command, "nohit", delete("three/first/more.inc"),
                     write("three/first/sub/blob", "six"), cwd="three"),
                step(command, "nohit", delete("three/first/sub/blob"),
                     write("three/more.inc", ".byte 4\n"), cwd="three"),
                step(command, "hit", delete("three/more.inc"), cwd="three"),
                step(f"{command.removesuffix('low.o')}other.o", "hit", cwd="three"),
                step(command, "hit", cwd="one"),
            ),
        )  # fmt: skip
        command = f"{cc} -g -c low.s -o"
        yield Scenario(
            name=f"plain-assembler-with-the-directory-{cc}",
            steps=(
                step(f"{command} a.o", "miss", write("one/low.s", "nop\n"), cwd="one"),
                step(f"{command} b.o", "hit", cwd="one"),
                step(f"{command} a.o", "nohit", write("two/low.s", "nop\n"), cwd="two"),
                step(f"{command} a.o", "nohit", cwd="one", env={"PWD": "%ROOT%/one/../one"}),
            ),
        )
        text = '.data\n.macro m a b\n.incbin "\\a\\b/one/blob"\n.endm\nm "%s", "%s"\n'
        yield Scenario(
            name=f"plain-assembler-with-a-name-in-pieces-{cc}",
            steps=(
                step(f"{cc} -c low.s -o low.o", "miss", write("one/blob", "one"),
                     _with_root("one/low.s", text), cwd="one"),
                step(f"{cc} -c low.s -o low.o", "nohit", copy("one", "two"),
                     write("one/blob", "two"), cwd="two"),
            ),
        )  # fmt: skip


def _with_root(name: str, text: str) -> Edit:
    """Write a file whose text holds the two halves of the tree's name."""

    def edit(root: Path) -> None:
        path = str(root)
        write(name, text % (path[:-3], path[-3:]))(root)

    return edit


def _embed() -> Iterator[Scenario]:
    for cc in ("clang-19", "clang-22"):
        if shutil.which(cc) is None:
            continue
        command = f"{cc} -std=c23 -c src/main.c -o main.o -Iinc"
        text = 'const char v[] = {\n#embed "blob"\n};\n'
        yield Scenario(
            name=f"embed-beside-the-source-{cc}",
            steps=(
                step(command, "miss", write("src/main.c", text), write("src/blob", "one")),
                step(command, "hit"),
                step(command, "nohit", write("src/blob", "two")),
                step(command, "hit", write("src/blob", "one")),
            ),
        )
        directories = f"{command} --embed-dir=first --embed-dir=data"
        for name, line in (("angled", "<sub/blob>"), ("quoted", '"sub/blob"')):
            text = f"const char v[] = {{\n#embed {line}\n}};\n"
            yield Scenario(
                name=f"embed-{name}-appears-earlier-{cc}",
                steps=(
                    step(directories, "miss", write("src/main.c", text),
                         write("data/sub/blob", "one"), mkdir("first")),
                    step(directories, "hit"),
                    step(directories, "nohit", write("first/sub/blob", "two")),
                    step(directories, "hit"),
                    step(directories, "any", write("src/sub/blob", "three")),
                    step(directories, "any", delete("src/sub/blob")),
                ),
            )  # fmt: skip
        text = "#define B <blob>\nconst char v[] = {\n#embed B\n};\n"
        yield Scenario(
            name=f"embed-by-a-macro-{cc}",
            steps=(
                step(directories, "miss", write("src/main.c", text), write("data/blob", "one"),
                     mkdir("first")),
                step(directories, "hit"),
                step(directories, "nohit", write("data/blob", "two")),
                step(directories, "nohit", write("first/blob", "two!")),
            ),
        )  # fmt: skip
        text = "#if __has_embed(<maybe>) == 1\nint v = 1;\n#elif __has_embed(<maybe>) == 2\n"
        text += "int v = 2;\n#else\nint v = 3;\n#endif\n"
        yield Scenario(
            name=f"has-embed-flips-{cc}",
            steps=(
                step(directories, "miss", write("src/main.c", text), mkdir("first", "data")),
                step(directories, "hit"),
                step(directories, "nohit", write("data/maybe", "")),
                step(directories, "hit"),
                step(directories, "nohit", write("data/maybe", "x")),
                step(directories, "nohit", write("first/maybe", "")),
                step(directories, "hit", delete("first/maybe"), delete("data/maybe")),
            ),
        )
        text = "#define M <maybe>\n#if __has_embed(M)\nint v;\n#endif\n"
        yield Scenario(
            name=f"has-embed-by-a-macro-{cc}",
            steps=(
                step(directories, "any", write("src/main.c", text), mkdir("first", "data")),
                step(directories, "any"),
                step(directories, "nohit", write("data/maybe", "x")),
            ),
        )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    yield from _spellings()
    yield from _other_ways()
    yield from _assembler()
    yield from _plain_assembler()
    yield from _unlisted()
    yield from _embed()
