"""What a precompiled header adds to the inputs of a compile that may use it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.closure import find_closure
from hpcc.cache.inputs.closure_types import Closure, ClosureRequest, MadeOf

TEXTS = {"a.c": '#include "all.h"\n', "all.h": '#include "in.h"\n', "in.h": "", "all.h.gch": "gpch"}


class Project:
    """A unit, a precompiled header, and what is known of that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # A clock ahead: whatever a test writes is old enough for its stat to answer.
        self.memo = FileMemo(lambda: time.time_ns() + 10**11)
        self.macros: tuple[bytes, ...] = ()
        self.is_reproduced = True
        for name, text in TEXTS.items():
            (root / name).write_text(text)

    def path(self, name: str) -> bytes:
        return os.fsencode(self.root / name)

    def made_from(self, path: bytes, digest: bytes) -> MadeOf:
        assert (path, digest) == (self.path("all.h.gch"), self.memo.digest(path))
        files = tuple((p, self.memo.digest(p) or b"") for p in map(self.path, ("all.h", "in.h")))
        return MadeOf(files, self.macros, lambda: self.is_reproduced)

    def closure(self, **changes: object) -> Closure:
        values: dict[str, object] = {
            "cwd": os.fsencode(self.root),
            "source": b"a.c",
            "files": (b"a.c",),
            "search": (),
            "forced": (),
            "started_ns": time.time_ns() + 10**10,
            "allow_date": False,
            "made_from": self.made_from,
        }
        return find_closure(self.memo, ClosureRequest(**{**values, **changes}))  # type: ignore[arg-type]  # built by name above


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_it_is_an_input_with_all_that_it_was_made_of(project: Project) -> None:
    closure = project.closure()
    assert {path for path, _ in closure.files} == set(map(project.path, TEXTS))
    assert closure.precompiled == (project.path("all.h.gch"),)


def test_a_question_with_a_macro_of_its_making(project: Project) -> None:
    (project.root / "a.c").write_text('#include "all.h"\n#if __has_include(OPT)\n#endif\n')
    project.macros = (b'OPT="opt.h"',)
    absent = [names for absence in project.closure().absences for names in absence.files]
    assert b"opt.h" in absent


@pytest.mark.parametrize("is_reproduced", [True, False])
def test_a_list_of_files_from_a_preprocessor_that_may_read_others(
    is_reproduced: bool, project: Project
) -> None:
    project.is_reproduced = is_reproduced
    assert project.closure().precompiled
    if is_reproduced:
        assert project.closure(asks_preprocessor=True).precompiled
    else:
        with pytest.raises(UncacheableError, match="pch"):
            project.closure(asks_preprocessor=True)
