"""Scenarios of installations: those that Clang finds by looking, and versions behind a link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, delete, link, mkdir, step, write

_ASKS: Final = write(
    "main.cc", "#if __has_include(<odd.h>)\nint v = 2;\n#else\nint v = 1;\n#endif\n"
)
_GCC: Final = "lib/gcc/x86_64-linux-gnu"


def _installation(root: str, version: int, *headers: str) -> tuple[Edit, ...]:
    return (
        write(f"{root}/{_GCC}/{version}/crtbegin.o", ""),
        mkdir(f"{root}/include/c++/{version}"),
        *(write(f"{root}/include/c++/{version}/{name}", "") for name in headers),
    )


def _appears(cc: str) -> Iterator[Scenario]:
    sysroot = f"{cc} --sysroot=%ROOT%/sys -c main.cc -o main.o"
    other = f"{cc} --gcc-toolchain=%ROOT%/tc -c main.cc -o main.o"
    libcxx = f"{cc} -stdlib=libc++ --sysroot=%ROOT%/sys -c main.cc -o main.o"
    narrow = f"{cc} -m32 --sysroot=%ROOT%/sys -c main.cc -o main.o"
    first = _installation("sys/usr", 12)
    variant = "sys/usr/include/x86_64-linux-gnu/c++/12"
    for name, command, before, after, gone in (
        ("first-gcc", sysroot, (mkdir("sys/usr/include"),),
         _installation("sys/usr", 12, "odd.h"), "sys/usr/lib"),
        ("newer-gcc", sysroot, first, _installation("sys/usr", 13, "odd.h"),
         f"sys/usr/{_GCC}/13"),
        ("headers-of-a-gcc", sysroot, (write(f"sys/usr/{_GCC}/12/crtbegin.o", ""),),
         (write("sys/usr/include/c++/12/odd.h", ""),), "sys/usr/include"),
        ("toolchain", other, (mkdir("tc/lib"),), _installation("tc", 13, "odd.h"), "tc/lib/gcc"),
        ("libc++", libcxx, first, (write("sys/usr/include/c++/v1/odd.h", ""),),
         "sys/usr/include/c++/v1"),
        ("variant", narrow, (*first, mkdir(variant)),
         (write(f"sys/usr/{_GCC}/12/32/crtbegin.o", ""), write(f"{variant}/32/odd.h", "")),
         f"sys/usr/{_GCC}/12/32"),
    ):  # fmt: skip
        yield Scenario(
            name=f"installation-appears-{name}-{cc}",
            steps=(
                step(command, "miss", _ASKS, *before),
                step(command, "hit"),
                step(command, "nohit", *after),
                step(command, "hit"),
                step(command, "any", delete(gone)),
            ),
        )


def _versions(cc: str) -> Iterator[Scenario]:
    """Yield links to versions of a library; GCC lists the real names where these are shorter."""
    main = write("main.c", "#include <sub/a.h>\nint v = A;\n")
    one, two = "#define A 1\n", "#define A 2\n"
    far = "the-version-in-use"
    for name, links in {
        "directory": {far: "v{0}"},
        "directory-below": {f"{far}/sub": "../v{0}/sub"},
        "header": {f"{far}/sub/a.h": "../../v{0}/sub/a.h"},
        "header-of-another-name": {f"{far}/sub/a.h": "../../v{0}/sub/b.h"},
    }.items():
        for same in (False, True):
            command = f"{cc} -isystem %ROOT%/{far} -g -gdwarf-4 -MD -c main.c -o main.o"
            first, second = (
                tuple(link(target.format(n), place) for place, target in links.items())
                for n in (1, 2)
            )
            texts = {1: one, 2: one if same else two}
            versions = tuple(
                write(f"v{n}/sub/{base}.h", text) for n, text in texts.items() for base in "ab"
            )
            yield Scenario(
                name=f"version-of-a-library-by-{name}{'-same' if same else ''}-{cc}",
                steps=(
                    step(command, "miss", main, *versions, *first),
                    step(command, "hit"),
                    step(command, "any" if same else "nohit", *second),
                    step(command),
                    step(command, "any", *first),
                ),
            )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _versions(cc)
    for cc in ("clang++-14", "clang++-19"):
        yield from _appears(cc)
