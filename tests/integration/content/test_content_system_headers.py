"""Headers of a project that a pragma makes headers of the system: GCC may spell them otherwise.

GCC writes the real name of such a header where that is shorter than the name it was found by. So
the length of a place's name decides.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

FAR = "../build/" * 40 + "../inc"
FILES = {
    "src/a.c": "#include <w.h>\nconst char *f(void) { return NAME(); } // first\n",
    # What a header of the system includes is one, too.
    "inc/w.h": '#pragma GCC system_header\n#include "x.h"\n',
    "inc/x.h": "static inline const char *NAME(void) { return __FILE__; } // one\n",
}


def _words(directory: str, output: str = "a.o") -> list[str]:
    depfile = ["-MD", "-MF", "a.d"]
    return ["gcc", "-g", f"-I{directory}", *depfile, "-c", "../src/a.c", "-o", output]


@pytest.mark.parametrize("directory", ["../inc", FAR])
def test_another_output_and_another_comment_hit(
    directory: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    assert project.compile(_words(directory)) == "miss"
    assert project.compile(_words(directory, "b.o")) == "hit"
    text = FILES["inc/x.h"].replace("// one", "// two")
    project.write("inc/x.h", text)
    age(project.root)
    assert project.compile(_words(directory)) == "hit"
    project.write("inc/x.h", "\n" + text)
    age(project.root)
    assert project.compile(_words(directory)) == "miss"


def test_another_place_with_a_longer_name_misses(
    make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    project = make("p", FILES)
    words = [word for word in _words(FAR) if word != "-g"]
    assert project.compile(words) == "miss"
    moved = move(project, "d/" * 200 + "q")
    assert moved.compile(words) == "miss"


def test_a_link_to_a_shorter_name_misses(make: Callable[..., Project]) -> None:
    project = make(
        "p", {name.replace("inc/", f"{'deep/' * 30}inc/"): t for name, t in FILES.items()}
    )
    words = _words(f"../{'deep/' * 30}inc")
    assert project.compile(words) == "miss"
    deep = project.root / ("deep/" * 30) / "inc"
    deep.rename(project.root / "i")
    deep.symlink_to(project.root / "i")
    assert project.compile([*words[:-1], "b.o"]) == "miss"
