"""Search directories of variables, as `module load` and package managers set them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project, age

FILES = {"src/a.c": "#include <v.h>\nint a = V;\n", "inc/v.h": "#define V 1\n"}
WORDS = ["-O2", "-MD", "-c", "{root}/src/a.c", "-o", "a.o"]
Make = Callable[..., Project]
Move = Callable[[Project, str], Project]


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _installed(at: Path) -> Path:
    at.mkdir(parents=True)
    (at / "v.h").write_text("#define V 1\n")
    age(at)
    return at


@pytest.mark.parametrize("name", ["CPATH", "C_INCLUDE_PATH"])
def test_a_moved_project_hits_with_directories_outside(
    cc: str, name: str, make: Make, move: Move, tmp_path: Path
) -> None:
    include = _installed(tmp_path / "opt/inc")
    project = make("p", FILES)
    project.env[name] = f"{tmp_path}/opt/none:{include}"
    assert project.compile([cc, *WORDS]) == "miss"
    moved = move(project, "longer/q")
    assert moved.compile([cc, *WORDS]) == "hit"
    earlier = _installed(tmp_path / "opt/none")
    (earlier / "v.h").write_text("#define V 2\n")
    assert moved.compile([cc, *WORDS]) == "miss"
    moved.env[name] = str(include)
    assert moved.compile([cc, *WORDS]) == "miss", "another value"


@pytest.mark.parametrize("value", ["{root}/inc", "../inc", ":{out}/opt/inc"])
def test_directories_that_depend_on_the_place_miss(
    cc: str, value: str, make: Make, move: Move, tmp_path: Path
) -> None:
    _installed(tmp_path / "opt/inc")
    project = make("p", FILES)
    if value.startswith(":"):
        project.write("build/v.h", "#define V 1\n")
        age(project.root)
    for at in (project, move(project, "longer/q")):
        at.env["C_INCLUDE_PATH"] = value.replace("{root}", str(at.root)).replace(
            "{out}", str(tmp_path)
        )
        assert at.compile([cc, *WORDS]) == "miss"


@pytest.mark.parametrize("way", ["C_INCLUDE_PATH", "CPATH"])
@pytest.mark.parametrize("link", ["opt/v.h", "a-name-that-is-longer-than-the-other"])
def test_a_link_into_the_first_place_leads_there_from_everywhere(
    cc: str, way: str, link: str, make: Make, move: Move, tmp_path: Path
) -> None:
    project = make("p", FILES)
    at = tmp_path / link
    at.parent.mkdir(exist_ok=True)
    at.symlink_to(project.root / "inc" / ("v.h" if link.endswith(".h") else ""))
    words = [cc, *WORDS]
    project.env[way] = str(at.parent if link.endswith(".h") else at)
    assert project.compile(words) == "miss"
    moved = move(project, "longer/q")
    moved.compile(words)  # compared with what the compiler writes
    project.write("inc/v.h", "#define V 2\n")
    age(project.root)
    assert moved.compile(words) == "miss"
    assert moved.compile(words) == "hit"
