"""A source of the assembler without the preprocessor hits for another output, clone and place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

FILES = {
    "src/crti.s": '.section .init\n.global _init\n_init:\n\tpush %rax\n.include "more.inc"\n',
    "src/data.s": '.data\n.incbin "blob"\n',
    "src/alone.s": ".text\n.global f\nf: ret\n",
    "inc/more.inc": '.data\n.include "deep/last.inc"\n',
    "inc/deep/last.inc": ".byte 1\n",
    "inc/blob": "one",
    "first/deep/other.inc": "",
}
COMPILERS = [["gcc"], ["clang-19"], ["clang-19", "-fno-integrated-as"]]
ABSOLUTE = ["-I{root}/first", "-I{root}/inc", "-c", "{root}/src/crti.s"]
RELATIVE = ["-I../first", "-I../inc", "-c", "../src/crti.s"]
DATA = ["-I../first", "-I../inc", "-c", "../src/data.s"]
MAKERS = {
    "macro": '.macro m a b\n.incbin "\\a\\b"\n.endm\nm "{head}", "{tail}"\n',
    "irp": '.irp x, {tail}\n.incbin "{head}\\x"\n.endr\n',
}


@pytest.fixture(params=COMPILERS, ids=" ".join)
def cc(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


@pytest.mark.parametrize("words", [ABSOLUTE, RELATIVE, DATA], ids=["absolute", "relative", "data"])
def test_another_output_build_directory_and_place_hit(
    cc: list[str],
    words: list[str],
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    project = make("p", FILES)
    assert project.compile([*cc, *words, "-o", "a.o"]) == "miss"
    assert project.compile([*cc, *words, "-o", "b.o"]) == "hit"
    assert project.compile([*cc, *words, "-o", "a.o"], "build2") == "hit"
    assert move(project, "elsewhere/with a blank").compile([*cc, *words, "-o", "a.o"]) == "hit"


def test_a_source_with_a_named_language_hits(
    cc: list[str], make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", {**FILES, "src/odd.asm": FILES["src/alone.s"]})
    words = [*cc, "-O2", "-pipe", "-Wall", "-DX=1", "-x", "assembler", "-c", "{root}/src/odd.asm"]
    assert project.compile([*words, "-o", "a.o"]) == "miss"
    assert project.compile([*words, "-o", "b.o"]) == "hit"
    assert move(project, "q").compile([*words, "-o", "b.o"]) == "hit"


@pytest.mark.parametrize(
    ("words", "name", "text", "is_read"),
    [
        (RELATIVE, "src/crti.s", '.data\n.byte 9\n.include "more.inc"\n', True),
        (DATA, "src/data.s", '.data\n.byte 9\n.incbin "blob"\n', True),
        (ABSOLUTE, "inc/more.inc", ".data\n.byte 9\n", True),
        (RELATIVE, "inc/deep/last.inc", ".byte 9\n", True),
        (DATA, "inc/blob", "two", True),
        (ABSOLUTE, "first/more.inc", ".data\n.byte 9\n", True),
        (DATA, "first/blob", "two", True),
        (RELATIVE, "build/more.inc", ".data\n.byte 9\n", True),
        (DATA, "build/blob", "two", True),
        (RELATIVE, "first/deep/last.inc", ".byte 9\n", True),
        (RELATIVE, "inc/blob", "two", False),
        (DATA, "first/more.inc", ".byte 9\n", False),
    ],
)
def test_whatever_the_assembler_reads_decides_in_another_place(
    cc: list[str],
    words: list[str],
    name: str,
    text: str,
    is_read: bool,
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    """`compile` compares the object with that of the bare compiler, whatever hpcc answers."""
    project = make("p", FILES)
    assert project.compile([*cc, *words, "-o", "a.o"]) == "miss"
    moved = move(project, "q")
    moved.write(name, text)
    age(moved.root)
    assert moved.compile([*cc, *words, "-o", "a.o"]) == ("miss" if is_read else "hit")


@pytest.mark.parametrize("debug", ["-g", "-g3", "-gdwarf-4", "-g -gz"])
def test_with_debug_information_another_output_hits_and_another_place_does_not(
    cc: list[str],
    debug: str,
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    project = make("p", FILES)
    words = [*cc, *debug.split(), "-I../inc", "-c", "../src/alone.s", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "b.o"]) == "hit"
    assert project.compile([*words, "a.o"], "build2") == "miss"
    assert move(project, "q").compile([*words, "a.o"]) == "miss"


def test_the_spelling_of_the_source_shows_in_debug_information(
    cc: list[str], make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile([*cc, "-g", "-c", "{root}/src/alone.s", "-o", "a.o"]) == "miss"
    assert project.compile([*cc, "-g", "-c", "../src/alone.s", "-o", "b.o"]) == "miss"
    assert project.compile([*cc, "-g", "-c", "../build/../src/alone.s", "-o", "b.o"]) == "miss"


def test_a_name_of_a_file_in_the_source_ties_it_to_the_place(
    cc: list[str], make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    project.write("src/named.s", f'.data\n.incbin "{project.root}/inc/blob"\n')
    age(project.root)
    words = [*cc, "-c", "../src/named.s", "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "q")
    project.write("inc/blob", "two")
    age(project.root)
    assert moved.compile(words) == "miss"


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("tail", [1, 3])
def test_a_name_that_macros_put_together_ties_the_source_to_the_place(
    cc: list[str],
    kind: str,
    tail: int,
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    project = make("p", FILES)
    blob = str(project.root / "inc/blob")
    at = len(str(project.root)) - tail
    text = MAKERS[kind].format(head=blob[:at], tail=blob[at:])
    project.write("src/made.s", ".data\n" + text)
    age(project.root)
    words = [*cc, "-c", "../src/made.s", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    if cc == ["gcc"]:
        assert project.compile([*words, "b.o"]) == "hit"
        assert project.cache.counters()["content.assembled-names"] == 1
    moved = move(project, "q")
    project.write("inc/blob", "two")
    age(project.root)
    assert moved.compile([*words, "a.o"]) == "miss"


def test_messages_of_the_assembler_get_the_names_of_the_asking_compile(
    cc: list[str], make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", {**FILES, "src/warns.s": '.warning "careful"\nnop\n'})
    words = [*cc, "-c", "{root}/src/warns.s", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "b.o"]) == "hit"
    move(project, "elsewhere/q").compile([*words, "a.o"])


def test_what_the_assembler_prints_is_never_taken_from_another_compile(
    make: Callable[..., Project],
) -> None:
    project = make("p", {**FILES, "src/prints.s": '.print "hello"\nnop\n'})
    words = ["gcc", "-c", "{root}/src/prints.s", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "b.o"]) == "miss"


@pytest.mark.parametrize("cc", ["gcc", "gcc-14", "clang-19"])
@pytest.mark.parametrize(
    "text", ["\tmovl $SIZE_B, %eax\n", "#define OF(x) $SIZE_##x\n\tmovl OF(B), %eax\n"]
)
def test_a_macro_behind_a_dollar_is_read(cc: str, text: str, make: Callable[..., Project]) -> None:
    """In an assembler source `$` ends a name."""
    project = make("p", {"src/f.S": text, "src/other.S": "\tret\n"})
    words = [cc, "-c", "../src/f.S", "-o", "a.o"]
    assert project.compile([*words, "-DSIZE_B=16"]) == "miss"
    assert project.compile([*words, "-DSIZE_B=32"]) == "miss"
    words[2] = "../src/other.S"
    assert project.compile([*words, "-DSIZE_B=16"]) == "miss"
    assert project.compile([*words, "-DSIZE_B=32"]) == "hit"


@pytest.mark.parametrize("name", ["src/gen.s", "src/gen.S"])
def test_the_name_of_a_source_that_is_gone_hits(
    name: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """Compilers and generators write `.file`, which GNU as lists and does not open."""
    text = '\t.file "made/from.c"\n\t.text\nf:\tret\n'
    project = make("p", {name: text})
    words = ["gcc", "-O1", "-c", f"../{name}", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "a.o"]) == "hit"
    assert project.compile([*words, "b.o"]) == "hit"
    assert move(project, "q").compile([*words, "a.o"]) == "hit"
    project.write(name, text + "\tnop\n")
    age(project.root)
    assert project.compile([*words, "a.o"]) == "miss"


@pytest.mark.parametrize(
    "more",
    [
        '\t.data\n\t.incbin "blob"\n',
        '\t.data\n\t.include "more.inc"\n',
        "\t.macro m a\n\t.data\n\t\\a\n\t.endm\n\tm .long\n",
    ],
)
def test_with_a_file_that_is_read_a_name_that_is_gone_is_not_kept(
    more: str, make: Callable[..., Project]
) -> None:
    """A file that vanished during the compile would look like the name in `.file`."""
    text = '\t.file "from.c"\n' + more
    project = make("p", {"src/gen.s": text, "inc/blob": "one", "inc/more.inc": "\t.byte 1\n"})
    words = ["gcc", "-I../inc", "-c", "../src/gen.s", "-o", "a.o"]
    assert project.compile(words) == "miss"
    assert project.compile(words) == "miss"
    project.write("build/from.c", "int there;\n")
    age(project.root)
    assert project.compile(words) == "miss"
    assert project.compile(words) == "hit"
    (project.root / "build/from.c").unlink()
    assert project.compile(words) == "miss"


@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
def test_a_marker_costs_an_assembler_source_no_hit_in_a_second_clone(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """It is not on the list for sharing, so it runs as it does without a marker."""
    files = {"src/f.S": '#include "n.h"\n\tmovl $N, %eax\n', "inc/n.h": "#define N 3\n"}
    project = make("p", files, root_name=".hpcc")
    project.gets_maps = False
    words = [cc, "-I../inc", "-c", "../src/f.S", "-o", "a.o"]
    assert project.compile(words) == "miss"
    moved = move(project, "q")
    moved.gets_maps = False
    assert moved.compile(words) == "hit"
    moved.write("inc/n.h", "#define N 4\n")
    age(moved.root)
    assert moved.compile(words) == "miss"
    assert moved.compile([cc, "-g", *words[1:]]) == "miss"
    assert project.compile([cc, "-g", *words[1:]]) == "miss"
