"""The C library and the Python engine agree on which names a directory must not contain.

The C library reads the directory; the Python engine looks up each name.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.base.files import signature_of
from hpcc.cache.replay.engine import Check, CheckKind, Engine, Outcome, Plan

Ask = Callable[..., int]
HOLDS, CHANGED = Outcome.DONE, Outcome.CHANGED
# Some are asked for one by one, more are looked for in what is read of the directory.
COUNTS = (1, 8, 9, 300)


def lacks(directory: Path | str, *names: str, values: tuple[int, ...] = ()) -> Check:
    encoded = tuple(sorted(map(os.fsencode, names)))
    return Check(CheckKind.LACKS, os.fsencode(directory), values, encoded)


def many(count: int) -> list[str]:
    return [f"n{i}.h" for i in range(count)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for name in ("a.c", "b.h", "sub"):
        (path / name).touch()
    return path


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["file", "directory", "dangling", "fifo"])
def test_each_of_the_names_is_seen_whatever_it_is(
    ask: Ask, directory: Path, count: int, kind: str
) -> None:
    names = many(count)
    check = lacks(directory, *names)
    assert ask(check) == HOLDS
    for name in {names[0], names[count // 2], names[-1]}:
        path = directory / name
        match kind:
            case "file":
                path.touch()
            case "directory":
                path.mkdir()
            case "dangling":
                path.symlink_to("nowhere")
            case _:
                os.mkfifo(path)
        assert ask(check) == CHANGED, name
        path.rmdir() if kind == "directory" else path.unlink()
    assert ask(check) == HOLDS


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 254, 255])
def test_a_name_of_any_length_is_seen(ask: Ask, directory: Path, length: int) -> None:
    check = lacks(directory, "x" * length, *many(20))
    for other in (length - 1, length + 1):
        if 0 < other < 256:
            (directory / ("x" * other)).touch()
    assert ask(check) == HOLDS
    (directory / ("x" * length)).touch()
    assert ask(check) == CHANGED


def test_names_that_are_nearly_there_are_absent(ask: Ask, directory: Path) -> None:
    check = lacks(directory, "B.h", "b.H", "b.hh", "bb.h", "b", "b.h.gch", "_.h", *many(20))
    assert ask(check) == HOLDS
    # Among names that differ by case alone, each is looked at.
    (directory / "b.H").touch()
    assert ask(check) == CHANGED


@pytest.mark.parametrize("entry", ["ü.h", "b\udcff.h", "\u212a.h", "n\u200b1.h"])
def test_an_entry_that_is_not_ascii_is_no_name_and_hides_none(
    ask: Ask, directory: Path, entry: str
) -> None:
    (directory / entry).touch()
    check = lacks(directory, *many(20))
    assert ask(check) == HOLDS
    (directory / "n19.h").touch()
    assert ask(check) == CHANGED


@pytest.mark.parametrize("count", COUNTS)
def test_names_are_found_in_a_directory_with_very_many(
    ask: Ask, directory: Path, count: int
) -> None:
    for i in range(1500):
        (directory / f"other-{i}-{'x' * (i % 100)}").touch()
    check = lacks(directory, *many(count))
    assert ask(check) == HOLDS
    (directory / many(count)[-1]).touch()
    assert ask(check) == CHANGED


@pytest.mark.parametrize("count", COUNTS)
def test_a_directory_as_it_was_needs_no_other_look(ask: Ask, directory: Path, count: int) -> None:
    names = many(count)
    as_it_was = signature_of(os.stat(directory))
    assert ask(lacks(directory, "b.h", *names, values=as_it_was)) == HOLDS
    for field in range(5):
        other = (*as_it_was[:field], as_it_was[field] + 1, *as_it_was[field + 1 :])
        assert ask(lacks(directory, *names, values=other)) == HOLDS
        assert ask(lacks(directory, "b.h", *names, values=other)) == CHANGED


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("there", ["nothing", "file", "dangling", "loop"])
def test_where_there_is_no_directory_nothing_holds(
    ask: Ask, directory: Path, there: str, count: int
) -> None:
    path = directory / "late"
    match there:
        case "file":
            path.touch()
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to("late")
        case _:
            pass
    assert ask(lacks(path, *many(count))) == CHANGED
    group = Check(CheckKind.ABSENT, os.fsencode(path / "x"))
    assert ask(group, lacks(path, *many(count))) == CHANGED


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_file_whose_state_was_recorded_is_no_directory(
    ask: Ask, directory: Path, count: int, is_alone: bool
) -> None:
    """The plan may open the directory first (many checks in it) or not; both agree."""
    file = directory / "b.h"
    check = lacks(file, *many(count), values=signature_of(os.stat(file)))
    beside = [Check(CheckKind.ABSENT, os.fsencode(file / f"x{i}")) for i in range(9)]
    assert ask(*beside) == HOLDS
    assert ask(*([check] if is_alone else [*beside, check])) == CHANGED


@pytest.mark.parametrize("count", COUNTS)
def test_a_directory_behind_a_link_is_the_one_it_leads_to(
    ask: Ask, directory: Path, tmp_path: Path, count: int
) -> None:
    link = tmp_path / "link"
    link.symlink_to("in")
    check = lacks(link, *many(count))
    assert ask(check) == HOLDS
    (directory / "n0.h").touch()
    assert ask(check) == CHANGED
    link.unlink()
    link.symlink_to(tmp_path)
    assert ask(check) == HOLDS


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/.", "{}/../in"])
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_directory_is_asked_alone_and_with_others(
    ask: Ask, directory: Path, spelling: str, is_alone: bool
) -> None:
    check = lacks(spelling.format(directory), *many(20))
    others = (
        Check(CheckKind.ABSENT, os.fsencode(directory / "x.h")),
        Check(CheckKind.PRESENT, os.fsencode(directory / "b.h")),
        lacks("/", *(f"no-such-{name}" for name in many(20))),
    )
    checks = (check,) if is_alone else (*others, check)
    assert ask(*checks) == HOLDS
    (directory / "n7.h").touch()
    assert ask(*checks) == CHANGED


def test_the_names_of_two_directories_are_not_mixed_up(ask: Ask, directory: Path) -> None:
    other = directory.with_name("other")
    other.mkdir()
    (other / "n3.h").touch()
    (directory / "o3.h").touch()
    others = [f"o{i}.h" for i in range(20)]
    assert ask(lacks(directory, *many(20)), lacks(other, *others)) == HOLDS
    assert ask(lacks(directory, *many(20)), lacks(other, *many(20))) == CHANGED
    assert ask(lacks(directory, *others), lacks(other, *others)) == CHANGED


@pytest.fixture
def closed() -> Iterator[Path]:
    """Yield a directory that may be searched but not read; a test run by root changes its uid."""
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent, "closed")
        path.mkdir()
        os.chmod(parent, 0o755)  # for the user below
        path.chmod(0o311)
        uid = os.geteuid()
        try:
            if uid == 0:  # to whom nothing is closed
                os.seteuid(65534)
            yield path
        finally:
            os.seteuid(uid)
            path.chmod(0o700)


@pytest.mark.parametrize("count", COUNTS)
def test_in_a_directory_that_cannot_be_read_names_are_asked_for(
    engine: Engine, closed: Path, count: int
) -> None:
    def ask(*names: str) -> int:
        plan = Plan((lacks(closed, *names),), (), 0o644, (0, 0), b"")
        return engine.replay(engine.prepare(plan), -1)

    with pytest.raises(PermissionError):
        os.listdir(closed)
    assert ask(*many(count)) == HOLDS
    uid = os.geteuid()
    os.seteuid(os.getuid())
    (closed / "n0.h").touch()
    os.seteuid(uid)
    assert ask(*many(count)) == CHANGED


@pytest.mark.parametrize("name", [b"", b"a/b", b"/a", b"a\0b", b"x" * 256, "ü.h".encode(), b"\xff"])
def test_a_name_that_reading_may_not_tell_is_refused(
    engine: Engine, directory: Path, name: bytes
) -> None:
    check = lacks(directory, *many(20))
    plan = Plan((check._replace(names=(*check.names, name)),), (), 0o644, (0, 0), b"")
    with pytest.raises(ValueError, match="name"):
        engine.prepare(plan)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_directory_has_itself_and_its_parent(ask: Ask, directory: Path, name: str) -> None:
    assert ask(lacks(directory, name)) == CHANGED
    assert ask(lacks(directory, name, *many(20))) == CHANGED
