"""A compile that shares headers with others gets the same closure as without them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.inputs import lookup
from hpcc.cache.inputs.closure import find_closure
from hpcc.cache.inputs.closure_types import Closure, ClosureRequest
from hpcc.cache.inputs.header_groups import EMPTY, HeaderGroup, HeaderGroups
from hpcc.compilers.scan.scan import Scan, scan_source

# More than the fewest headers of a group, and more than one compile may have beyond its group.
_MANY = 60
_DIRECTORIES = ("one", "two", "two/deep", "three")


@pytest.fixture
def memo() -> FileMemo:
    # A clock ahead: whatever a test writes is old enough for its stat to answer.
    return FileMemo(lambda: time.time_ns() + 10**11)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> HeaderGroups:
    fresh = HeaderGroups()
    monkeypatch.setattr(lookup, "GROUPS", fresh)
    return fresh


class _NoGroups(HeaderGroups):
    def find(self, source: bytes, scans: object) -> HeaderGroup:
        return EMPTY


def _closure(memo: FileMemo, root: Path, source: str, files: Iterable[str]) -> Closure:
    return find_closure(
        memo,
        ClosureRequest(
            cwd=os.fsencode(root),
            source=source.encode(),
            files=tuple(name.encode() for name in (source, *files)),
            search=(b"one", b"two", b"three", b"gone"),
            forced=(),
            started_ns=time.time_ns() + 10**10,
            allow_date=False,
        ),
    )


def _facts(closure: Closure) -> tuple[object, ...]:
    absent = {a.directory: (a.files, a.directories) for a in closure.absences}
    return (
        dict(closure.files), set(closure.present), set(closure.existing), absent,
        closure.has_absolute, closure.hazards, dict(closure.plain),
    )  # fmt: skip


def _header(chance: random.Random, names: list[str]) -> str:
    lines = []
    for name in chance.sample(names, 3):
        base = name.rpartition("/")[2]
        lines += [
            f'#include "{base}"',
            f"#include <deep/{base}>",
            f"#if __has_include(<maybe/{base}>)\n#endif",
            f'#if __has_include("{base}")\n#endif',
            f'#include "../{base}"',
        ]
    return "\n".join(chance.sample(lines, 4)) + "\n"


def _tree(root: Path, chance: random.Random, *, is_computed: bool) -> list[str]:
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    names = [f"{_DIRECTORIES[n % len(_DIRECTORIES)]}/h{n}.h" for n in range(_MANY)]
    for name in names:
        (root / name).write_text(_header(chance, names))
    if is_computed:
        with (root / names[7]).open("a") as file:
            file.write("#include MACRO\n")
    return names


@pytest.mark.parametrize("is_computed", [False, True], ids=["plain", "computed"])
@pytest.mark.parametrize("seed", range(6))
def test_a_group_changes_no_closure(
    seed: int,
    is_computed: bool,
    tmp_path: Path,
    memo: FileMemo,
    groups: HeaderGroups,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = random.Random(seed)
    names = _tree(tmp_path, chance, is_computed=is_computed)
    used = 0
    for unit in range(8):
        source = f"u{unit}.c"
        text = _header(chance, names) + ("#include OTHER\n" if unit == 5 else "")
        (tmp_path / source).write_text(text)
        read = [name for name in names if chance.random() < 0.95]
        monkeypatch.setattr(lookup, "GROUPS", groups)
        shared = _closure(memo, tmp_path, source, read)
        used += groups.find(b"", _scans(memo, tmp_path, (source, *read))) is not EMPTY
        monkeypatch.setattr(lookup, "GROUPS", _NoGroups())
        assert _facts(_closure(memo, tmp_path, source, read)) == _facts(shared)
    assert used >= 4


def _scans(memo: FileMemo, root: Path, names: Iterable[str]) -> dict[bytes, Scan]:
    paths = [os.fsencode(root / name) for name in names]
    return {path: found.scan for path in paths if (found := memo.examine(path))}


def _settle_group(memo: FileMemo, root: Path, names: list[str]) -> None:
    for unit in range(3):
        (root / f"s{unit}.c").write_text('#include "h0.h"\n')
        _closure(memo, root, f"s{unit}.c", names)


def _size_of_group(groups: HeaderGroups, memo: FileMemo, root: Path, names: list[str]) -> int:
    scans = _scans(memo, root, ("s0.c", *names))
    return len(groups.find(os.fsencode(root / "s0.c"), scans).scans)


def _shared(tmp_path: Path, memo: FileMemo, groups: HeaderGroups) -> list[str]:
    for name in _DIRECTORIES:
        (tmp_path / name).mkdir(parents=True)
    names = [f"three/h{n}.h" for n in range(_MANY)]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f'#include "h{number + 1}.h"\n')
    _settle_group(memo, tmp_path, names)
    assert _size_of_group(groups, memo, tmp_path, names) == _MANY
    return names


def test_a_header_that_appears_earlier_on_the_path_is_seen(
    tmp_path: Path, memo: FileMemo, groups: HeaderGroups
) -> None:
    names = _shared(tmp_path, memo, groups)
    before = _closure(memo, tmp_path, "s0.c", names)
    assert any(a.directory.endswith(b"/one") and b"h3.h" in a.files for a in before.absences)
    (tmp_path / "one/h3.h").write_text("")
    after = _closure(memo, tmp_path, "s0.c", names)
    assert os.fsencode(tmp_path / "one/h3.h") in after.existing
    assert not any(a.directory.endswith(b"/one") and b"h3.h" in a.files for a in after.absences)


def test_an_edited_header_leaves_its_group(
    tmp_path: Path, memo: FileMemo, groups: HeaderGroups
) -> None:
    names = _shared(tmp_path, memo, groups)
    (tmp_path / names[4]).write_text("#include <new.h>\n")
    assert _size_of_group(groups, memo, tmp_path, names) < _MANY
    closure = _closure(memo, tmp_path, "s0.c", names)
    assert all(b"new.h" in a.files for a in closure.absences if a.directory.endswith(b"/one"))


def test_a_new_directory_on_the_path_is_seen(
    tmp_path: Path, memo: FileMemo, groups: HeaderGroups
) -> None:
    names = _shared(tmp_path, memo, groups)
    (tmp_path / "gone").mkdir()
    closure = _closure(memo, tmp_path, "s1.c", names)
    (absence,) = (a for a in closure.absences if a.directory.endswith(b"/gone"))
    assert {b"h1.h", f"h{_MANY}.h".encode()} <= absence.files


def test_the_source_is_never_in_its_group() -> None:
    groups = HeaderGroups()
    scans = {b"/h%d.h" % n: scan_source(b"\n#include <x%d.h>\n" % n) for n in range(_MANY)}
    for name in (b"/a.c", b"/b.c", b"/c.c"):
        groups.find(name, {name: scan_source(name), **scans})
    assert len(groups.find(b"/d.c", {b"/d.c": scan_source(b""), **scans}).scans) == _MANY
    assert b"/h3.h" not in groups.find(b"/h3.h", scans).scans
