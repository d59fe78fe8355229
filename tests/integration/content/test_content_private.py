"""One source in two targets of Meson, each with its own directory on the search path."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

FILES = {
    "a.c": '#include <stdio.h>\n#include "h.h"\nint f(void) { return H; }\n',
    "inc/h.h": "#define H 1\n",
    "build/one.p/keep": "",
    "build/two.p/keep": "",
}


def _words(target: str, *flags: str, cc: str = "gcc") -> list[str]:
    name = f"{target}.p/a.c.o"
    depfile = ["-MD", "-MQ", name, "-MF", f"{name}.d"]
    return [cc, f"-I{target}.p", "-I.", "-I../inc", *flags, *depfile, "-o", name, "-c", "../a.c"]


@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
@pytest.mark.parametrize("flags", [["-O2"], ["-O0", "-g"]])
def test_a_second_target_hits(cc: str, flags: list[str], make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words("one", *flags, cc=cc)) == "miss"
    assert project.compile(_words("two", *flags, cc=cc)) == "hit"
    assert project.compile(_words("one", *flags, cc=cc)) == "hit"


def test_a_header_that_appears_there_is_found(make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words("one")) == "miss"
    project.write("build/two.p/h.h", "#define H 2\n")
    age(project.root)
    assert project.compile(_words("two")) == "miss"
    assert project.compile(_words("one")) == "hit"
    (project.root / "build/two.p/h.h").unlink()
    assert project.compile(_words("two")) == "hit"
    # Where the first target was compiled, nothing was read that is not in the second's place.
    project.write("build/one.p/h.h", "#define H 3\n")
    age(project.root)
    assert project.compile(_words("one")) == "miss"
    assert project.compile(_words("two")) == "hit"


def test_what_is_read_there_counts(make: Callable[..., Project]) -> None:
    files = {"build/one.p/h.h": "#define H 2\n", "build/two.p/h.h": "#define H 2\n"}
    project = make("p", {**FILES, **files})
    assert project.compile(_words("one", "-g")) == "miss"
    assert project.compile(_words("two", "-g")) == "miss"
    project.write("build/two.p/h.h", "#define H 5\n")
    age(project.root)
    assert project.compile(_words("two", "-g")) == "miss"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ('#if __has_include("one.p/x.h")\nint x = 1;\n#endif\n', []),
        ("#if __has_include(<one.\\\np/x.h>)\nint x = 1;\n#endif\n", []),
        ("#if __has_include(X)\nint x = 1;\n#endif\n", ["-DX=<one.p/x.h>"]),
        ("#define X <DIR/x.h>\n#if __has_include(X)\nint x = 1;\n#endif\n", ["-DDIR=one.p"]),
        ("#define S(x) #x\n#define X S(one.p/x.h)\n#if __has_include(X)\nint x = 1;\n#endif\n", []),
    ],
)
def test_a_name_that_leads_there_counts(
    text: str, flags: list[str], make: Callable[..., Project]
) -> None:
    """Both targets look for one.p/x.h, so the second's own directory stands for nothing."""
    project = make("p", {**FILES, "a.c": text + FILES["a.c"]})
    project.compile(_words("one", *flags))
    project.write("build/one.p/x.h", "")
    age(project.root)
    assert project.compile(_words("two", *flags)) == "miss"


def test_a_directory_that_is_searched_in_another_way_counts(make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words("one", "-isystem", "one.p")) == "miss"
    assert project.compile(_words("two", "-isystem", "two.p")) == "miss"
    assert project.compile(_words("one", "-I../inc/../build/one.p")) == "miss"
    assert project.compile(_words("two", "-I../inc/../build/one.p")) == "miss"
    assert project.compile(["gcc", "-Ione.p", "-I../inc", "-c", "../a.c", "-o", "a.o"]) == "miss"
    assert project.compile(["gcc", "-Itwo.p", "-I../inc", "-c", "../a.c", "-o", "a.o"]) == "miss"


def test_one_directory_that_is_missing_counts(make: Callable[..., Project]) -> None:
    project = make("p", {name: text for name, text in FILES.items() if "two.p" not in name})
    warned = "-Wmissing-include-dirs"
    words = [w for w in _words("one", warned) if "-M" not in w]
    assert project.compile(words) == "miss"
    (project.root / "build/two.p").mkdir()
    assert project.compile(_words("two", warned)) == "miss"


def test_both_targets_hit_in_a_new_build_directory(make: Callable[..., Project]) -> None:
    """A generated header in a target's directory keeps its results from no other build directory."""
    files = {f"{b}/{t}.p/h.h": "#define H 2\n" for b in ("build", "b2") for t in ("one", "two")}
    project = make("p", {**FILES, **files})
    for target in ("one", "two"):
        assert project.compile(_words(target)) == "miss"
    for target in ("one", "two"):
        assert project.compile(_words(target), cwd="b2") == "hit"
