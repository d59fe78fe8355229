"""Which commands may get a word more: nothing that could show or store it."""

from __future__ import annotations

import pytest

from hpcc.cache.links.command import LinkCommand, is_driver, read_link


def link(text: str) -> LinkCommand | None:
    return read_link([word.encode() for word in text.split()])


@pytest.mark.parametrize(
    "text",
    [
        "a.o b.o -o app",
        "-shared -fPIC -Wl,-soname,libx.so.1 -o libx.so.1.2 a.o",
        "-O2 -g -Wall -std=c++20 -pthread -Llib -lm -l z a.o libb.a ../libc.so.6 -o app",
        "-flto=auto -static-pie -Wl,--version-script=v.map,--as-needed -Wl,-rpath,/x a.o",
        "-Wl,--dynamic-list=d.txt -Xlinker -Map -Xlinker a.map -Wl,--build-id=sha1 a.o",
        "-fdiagnostics-color=always -fcolor-diagnostics a.o",
        "--sysroot=/s -target arm64-linux-gnu -rtlib=compiler-rt -stdlib=libc++ a.o",
    ],
)
def test_a_link_of_objects_may_be_recorded(text: str) -> None:
    assert link(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "a.c -o app",
        "a.o main.cc",
        "-o app",
        "a.o -o -",
        "a.o -o",
        "a.o -v",
        "a.o -###",
        "a.o --verbose",
        "a.o -wrapper gdb,--args",
        "a.o -specs=own.specs",
        "a.o -save-temps",
        "a.o -fplugin=p.so",
        "a.o -frecord-gcc-switches",
        "a.o -fdiagnostics-format=sarif-file",
        "a.o -unknown-word",
        "a.o @missing.rsp",
        "a.o -Wl,--dependency-file=d",
        "a.o -Wl,-dependency-file,d",
        "a.o -Xlinker --dependency-f -Xlinker d",
        "a.o -Wl,--reproduce=r.tar",
        "a.o -Wl,--repro",
        "a.o -Wl,--incremental",
        "a.o -Wl,-v",
        "a.o -Wl,--version",
        "a.o -Wl,--verb",
        "a.o -Wl,-t",
        "a.o -Wl,-M",
        "a.o -Wl,--print-map",
        "a.o -Wl,-plugin,p.so",
        "a.o -Wl,@words",
        "a.o -Wl,-o,b",
        "a.o -Wl,-omagic",
        "a.o -Xlinker --outp=b",
        "a.o -Wl,-Map=-",
        "a.o -Wl,-Map,-",
        "a.o -Wl,-y,net",
        "a.o -Wl,--cref",
        "a.o -Wl,--debug=task",
        "-c a.s",
    ],
)
def test_any_other_command_runs_as_it_is(text: str) -> None:
    assert link(text) is None


def test_the_output_and_what_chooses_the_linker_are_read() -> None:
    found = link("a.o -fuse-ld=lld -B own -m32 -o first -O2 -o last")
    choosing = (b"-fuse-ld=lld", b"-B", b"own", b"-m32")
    assert found == LinkCommand(b"last", choosing, True, (b"a.o",), ())
    found = link("a.o -fuse-ld=lld b.a")
    assert found == LinkCommand(b"a.out", (b"-fuse-ld=lld",), False, (b"a.o", b"b.a"), ())


def test_other_names_of_files_are_read() -> None:
    found = link(
        "a.o -T x.ld -Ty.ld -Wl,--version-script=v,--dynamic-list,d -Xlinker -R -Xlinker r"
    )
    assert found is not None
    assert {b"x.ld", b"y.ld", b"v", b"d", b"r"} <= set(found.named)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/usr/bin/gcc", True), ("/x/aarch64-linux-gnu-g++-14", True), ("/usr/bin/c++", True),
        ("/opt/clang++-19", True), ("/usr/bin/cc", True), ("/bin/cp", False), ("/x/nvcc", False),
        ("/x/gcc-ar", False), ("/x/clang-tidy", False), ("/x/ccache", False),
    ],
)  # fmt: skip
def test_only_a_program_with_a_drivers_name_is_asked(name: str, expected: bool) -> None:
    assert is_driver(name.encode()) is expected
