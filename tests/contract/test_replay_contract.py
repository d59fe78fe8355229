"""The C library and the Python engine check the same things before a replay."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.base.files import signature_of
from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay.engine import (
    MAX_ANSWER_BYTES,
    MAX_OUTPUTS,
    Check,
    CheckKind,
    Engine,
    Outcome,
    Plan,
)

Ask = Callable[..., int]
HOLDS, CHANGED = Outcome.DONE, Outcome.CHANGED
STATE_FIELDS = ("device", "inode", "size", "mtime", "ctime")
PLACE_FIELDS = ("device", "inode", "mode", "owner")


def name(path: Path | str) -> bytes:
    return os.fsencode(path)


def state(path: Path | str) -> Check:
    return Check(CheckKind.STATE, name(path), signature_of(os.stat(path)))


def place(path: Path | str) -> Check:
    found = os.stat(path)
    values = (found.st_dev, found.st_ino, found.st_mode, found.st_uid)
    return Check(CheckKind.PLACE, name(path), values)


def absent(path: Path | str) -> Check:
    return Check(CheckKind.ABSENT, name(path))


def present(path: Path | str) -> Check:
    return Check(CheckKind.PRESENT, name(path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.h"
    path.parent.mkdir()
    path.write_text("#define A 1\n")
    return path


# ---- STATE ----


def test_a_file_as_it_was_holds(ask: Ask, file: Path) -> None:
    assert ask(state(file)) == HOLDS


@pytest.mark.parametrize("field", STATE_FIELDS)
@pytest.mark.parametrize("step", [1, -1])
def test_each_field_of_a_state_is_compared(ask: Ask, file: Path, field: str, step: int) -> None:
    check = state(file)
    at = STATE_FIELDS.index(field)
    values = list(check.values)
    values[at] += step
    assert ask(check._replace(values=tuple(values))) == CHANGED


def test_an_edit_of_the_same_size_whose_mtime_was_put_back_is_seen(ask: Ask, file: Path) -> None:
    before, check = file.stat(), state(file)
    while os.stat(file).st_ctime_ns == before.st_ctime_ns:  # one tick of the kernel's clock
        file.write_text("#define A 2\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask(check) == CHANGED


def test_another_file_of_the_same_content_is_seen(ask: Ask, file: Path) -> None:
    check = state(file)
    other = file.with_name("b.h")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)
    assert ask(check) == CHANGED


@pytest.mark.parametrize(
    "seconds", [-86_400 * 365 * 3, -1, 0, 2**31, 17_000_000_000, 20_000_000_000]
)
def test_a_file_of_any_age_can_be_pinned(ask: Ask, file: Path, seconds: int) -> None:
    ns = seconds * 1_000_000_000 + 1
    os.utime(file, ns=(ns, ns))
    check = state(file)
    assert ask(check) == HOLDS
    device, inode, size, mtime, ctime = check.values
    assert ask(check._replace(values=(device, inode, size, mtime + 1, ctime))) == CHANGED


def test_a_state_follows_links(ask: Ask, file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file.name)
    assert ask(Check(CheckKind.STATE, name(link), state(file).values)) == HOLDS
    link.unlink()
    link.symlink_to("b.h")
    file.with_name("b.h").write_text("#define A 1\n")
    assert ask(Check(CheckKind.STATE, name(link), state(file).values)) == CHANGED


def test_the_state_of_a_directory_changes_with_its_names(ask: Ask, file: Path) -> None:
    before = os.stat(file.parent).st_mtime_ns
    check = state(file.parent)
    assert ask(check) == HOLDS
    while os.stat(file.parent).st_mtime_ns == before:
        (file.parent / "new.h").write_text("")
        (file.parent / "new.h").unlink()
    assert ask(check) == CHANGED


@pytest.mark.parametrize("kind", ["gone", "dangling", "below-a-file", "loop"])
def test_a_state_of_nothing_does_not_hold(ask: Ask, file: Path, kind: str) -> None:
    check = state(file)
    path = file
    if kind == "below-a-file":
        path = file / "x"
    else:
        file.unlink()
        if kind != "gone":
            file.symlink_to("nowhere" if kind == "dangling" else file.name)
    assert ask(check._replace(path=name(path))) == CHANGED


# ---- PLACE ----


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/.", "{}/in/.."])
def test_a_place_holds_whatever_is_in_it(
    ask: Ask, tmp_path: Path, file: Path, spelling: str
) -> None:
    check = place(spelling.format(tmp_path))
    (tmp_path / "more").write_text("")
    assert ask(check) == HOLDS


@pytest.mark.parametrize("field", PLACE_FIELDS)
def test_each_field_of_a_place_is_compared(ask: Ask, tmp_path: Path, field: str) -> None:
    check = place(tmp_path)
    values = list(check.values)
    values[PLACE_FIELDS.index(field)] ^= 1
    assert ask(check._replace(values=tuple(values))) == CHANGED


def test_another_directory_of_the_same_name_is_another_place(ask: Ask, file: Path) -> None:
    check = place(f"{file.parent}/.")
    file.parent.rename(file.parent.with_name("old"))
    file.parent.mkdir()
    assert ask(check) == CHANGED


def test_a_place_whose_permissions_changed_is_another(ask: Ask, file: Path) -> None:
    check = place(file.parent)
    file.parent.chmod(0o700 ^ stat.S_IMODE(file.parent.stat().st_mode))
    assert ask(check) == CHANGED


def test_a_place_that_became_a_file_or_nothing_is_seen(ask: Ask, file: Path) -> None:
    for spelling in (file.parent, f"{file.parent}/", f"{file.parent}/."):
        check = place(spelling)
        file.parent.rename(file.parent.with_name("old"))
        assert ask(check) == CHANGED
        file.parent.write_text("")
        assert ask(check) == CHANGED
        file.parent.unlink()
        file.parent.with_name("old").rename(file.parent)


# ---- PRESENT and ABSENT ----


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo", "link-to-directory"])
def test_whatever_is_there_is_not_absent_and_present_unless_a_directory(
    ask: Ask, file: Path, kind: str
) -> None:
    path = file.with_name("thing")
    match kind:
        case "file":
            path.write_text("")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(file.name)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.symlink_to(".")
    assert ask(present(path)) == (CHANGED if "directory" in kind else HOLDS)
    assert ask(absent(path)) == CHANGED


def test_what_is_not_there_is_absent_and_not_present(ask: Ask, file: Path) -> None:
    path = file.with_name("nothing")
    assert ask(absent(path)) == HOLDS
    assert ask(present(path)) == CHANGED


@pytest.mark.parametrize("target", ["nowhere", "thing"])
def test_a_link_that_leads_nowhere_is_neither_absent_nor_present(
    ask: Ask, file: Path, target: str
) -> None:
    path = file.with_name("thing")
    path.symlink_to(target)
    assert ask(absent(path)) == CHANGED
    assert ask(present(path)) == CHANGED


def test_below_a_file_every_name_is_absent(ask: Ask, file: Path) -> None:
    assert ask(absent(file / "x.h")) == HOLDS
    assert ask(absent(file / "x.h"), absent(file / "y.h")) == HOLDS
    assert ask(absent(file / "x.h"), present(file / "y.h")) == CHANGED


def test_a_name_too_long_for_any_file_cannot_be_told(ask: Ask, file: Path) -> None:
    path = file.with_name("x" * 300)
    assert ask(absent(path)) == CHANGED
    assert ask(present(path)) == CHANGED
    assert ask(absent(path), absent(file.with_name("y"))) == CHANGED


def test_a_directory_that_may_not_be_searched_cannot_be_told(ask: Ask, file: Path) -> None:
    if os.geteuid() == 0:
        # Root may search everything; a link that leads to itself is as opaque.
        (file.parent / "loop").symlink_to("loop")
        closed = file.parent / "loop"
    else:
        closed = file.parent / "closed"
        closed.mkdir(mode=0)
    assert ask(absent(closed / "x.h")) == CHANGED
    assert ask(absent(closed / "x.h"), absent(closed / "y.h")) == CHANGED


# ---- many checks ----


@pytest.mark.parametrize("count", [1, 2, 50])
def test_each_of_many_names_in_one_directory_is_looked_at(ask: Ask, file: Path, count: int) -> None:
    names = [file.with_name(f"n{i}.h") for i in range(count)]
    checks = [absent(path) for path in names]
    assert ask(*checks) == HOLDS
    for path in (names[0], names[-1]):
        path.write_text("")
        assert ask(*checks) == CHANGED
        path.unlink()


@pytest.mark.parametrize("kind", ["missing", "dangling"])
def test_in_a_directory_that_is_not_there_names_are_absent_and_nothing_else(
    ask: Ask, file: Path, kind: str
) -> None:
    gone = file.parent / "gone"
    if kind == "dangling":
        gone.symlink_to("nowhere")
    assert ask(absent(gone / "x.h"), absent(gone / "y.h")) == HOLDS
    assert ask(absent(gone / "x.h"), present(gone / "y.h")) == CHANGED
    assert ask(absent(gone / "x.h"), place(file.parent)._replace(path=name(gone / "."))) == CHANGED
    assert ask(absent(gone / "x.h"), state(file)._replace(path=name(gone / "a.h"))) == CHANGED


def test_a_missing_directory_that_appears_is_seen_only_by_its_names(ask: Ask, file: Path) -> None:
    late = file.parent / "late"
    checks = (absent(late / "x.h"), absent(late / "y.h"))
    late.mkdir()
    assert ask(*checks) == HOLDS
    (late / "y.h").write_text("")
    assert ask(*checks) == CHANGED


def test_a_directory_and_names_in_it_may_be_asked_for_together(ask: Ask, file: Path) -> None:
    checks = (
        place(f"{file.parent}/."),
        place(f"{file.parent}/"),
        state(file),
        absent(file.with_name("b.h")),
        present(file),
        state("/"),
        absent("/no-such-name-at-the-root"),
    )
    assert ask(*checks) == HOLDS
    for i, check in enumerate(checks):
        wrong = check._replace(kind=CheckKind.ABSENT, values=())
        if check.kind is CheckKind.ABSENT:
            wrong = check._replace(kind=CheckKind.PRESENT)
        assert ask(*checks[:i], wrong, *checks[i + 1 :]) == CHANGED, check


def test_the_same_names_in_two_directories_are_not_mixed_up(ask: Ask, tmp_path: Path) -> None:
    for directory in ("one", "two", "three"):
        (tmp_path / directory).mkdir()
    (tmp_path / "two" / "x.h").write_text("")
    (tmp_path / "two" / "y.h").write_text("")
    checks = (
        absent(tmp_path / "one" / "x.h"),
        present(tmp_path / "two" / "x.h"),
        absent(tmp_path / "three" / "x.h"),
        absent(tmp_path / "one" / "y.h"),
        present(tmp_path / "two" / "y.h"),
    )
    assert ask(*checks) == HOLDS
    (tmp_path / "three" / "x.h").write_text("")
    assert ask(*checks) == CHANGED


def test_no_check_at_all_holds(ask: Ask) -> None:
    assert ask() == HOLDS


def test_when_a_check_fails_nothing_is_touched(
    write: Callable[..., int], file: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.o"
    old.write_text("old")
    before = os.stat(old)
    for checks in ((absent(file),), (present(file), absent(file)), (state(file), absent(file))):
        assert write((old, b"new"), (tmp_path / "new.d", b""), checks=checks) == CHANGED
    assert (old.read_text(), os.stat(old)) == ("old", before)
    assert not (tmp_path / "new.d").exists()


# ---- what fits ----


def test_a_plan_with_more_than_fits_is_refused(engine: Engine, tmp_path: Path) -> None:
    output = OutputFile(name(tmp_path / "a.o"), b"")
    plan = Plan((), (output,), 0o644, (0, 0), b"x" * MAX_ANSWER_BYTES)
    engine.prepare(plan)
    engine.prepare(plan._replace(outputs=(output,) * MAX_OUTPUTS))
    for too_much in (
        plan._replace(answer=plan.answer + b"x"),
        plan._replace(outputs=(output,) * (MAX_OUTPUTS + 1)),
    ):
        with pytest.raises(ValueError, match="too much"):
            engine.prepare(too_much)


def test_a_name_that_no_file_can_have_is_refused(engine: Engine, tmp_path: Path) -> None:
    odd = name(tmp_path / "a") + b"\0b"
    plan = Plan((), (), 0o644, (0, 0), b"")
    for refused in (
        plan._replace(checks=(Check(CheckKind.ABSENT, odd),)),
        plan._replace(checks=(Check(CheckKind.ABSENT, odd + b"/x"), absent(tmp_path / "y"))),
        plan._replace(outputs=(OutputFile(odd, b""),)),
    ):
        with pytest.raises(ValueError, match="NUL"):
            engine.prepare(refused)
