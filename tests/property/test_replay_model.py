"""Both engines and a slow model agree on any small tree and plan, and on the tree afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcc.cache.base.files import signature_of
from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay.engine import Check, CheckKind, Engine, Outcome, Plan
from hpcc.cache.replay.native import Native, load_native
from hpcc.cache.replay.plan_bytes import encode_plan
from hpcc.cache.replay.python_engine import PythonEngine
from hpcc_testkit.suite.examples import examples


class Grouping(Native):
    """Opens every directory, as the engine does for a directory with many checks."""

    def prepare(self, plan: Plan) -> bytes:
        return encode_plan(plan, min_group=1)


def grouping() -> Engine:
    return Grouping(load_native().library)


ENGINES: tuple[Callable[[], Engine], ...] = (load_native, grouping, PythonEngine)
DIRECTORIES = ("", "d/", "d/e/", "gone/")
NAMES = ("a", "b", "c")
PATHS = st.builds("{}{}".format, st.sampled_from(DIRECTORIES), st.sampled_from(NAMES))
DATA = st.sampled_from([b"", b"x", b"longer data"])
THINGS = ("file", "directory", "fifo", "link-to-a", "dangling", "loop", "second-name-of-a")


@dataclass(frozen=True)
class Asked:
    """A check; `is_spoilt` changes one of its values."""

    kind: CheckKind
    path: str
    spoilt: int | None


@dataclass(frozen=True)
class Wanted:
    path: str
    data: bytes
    keeps_mode: bool


TREES = st.dictionaries(
    PATHS, st.tuples(st.sampled_from(THINGS), DATA, st.sampled_from([0o600, 0o644])), max_size=6
)
CHECKS = st.lists(
    st.builds(
        Asked,
        st.sampled_from(CheckKind),
        st.one_of(PATHS, st.sampled_from(["", "d", "d/", "d/.", "a/.", "gone/.", "a/x"])),
        st.one_of(st.none(), st.none(), st.integers(0, 4)),
    ),
    max_size=5,
)
OUTPUTS = st.lists(st.builds(Wanted, PATHS, DATA, st.booleans()), max_size=4)


def build(root: Path, tree: dict[str, tuple[str, bytes, int]]) -> None:
    (root / "d" / "e").mkdir(parents=True)
    for name, (thing, data, mode) in tree.items():
        path = root / name
        if path.parent.is_dir():
            make(path, thing, root / "a")
            if thing == "file":
                path.write_bytes(data)
                path.chmod(mode)
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)


def make(path: Path, thing: str, a: Path) -> None:
    match thing:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link-to-a":
            path.symlink_to(a)
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "second-name-of-a" if a.is_file() and not a.is_symlink() and path != a:
            path.hardlink_to(a)


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Describe a tree by what a user can see, except times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        data: object = None
        if kind == stat.S_IFREG:
            data = (path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_nlink)
        elif kind == stat.S_IFLNK:
            data = path.readlink().name
        found[str(path.relative_to(root))] = (kind, data)
    return found


def check_of(root: Path, asked: Asked) -> tuple[Check, bool]:
    """Return a check of the present tree, and whether it must hold."""
    path = os.path.join(root, asked.path)
    try:
        status: os.stat_result | None = os.stat(path)
    except OSError:
        status = None
    if asked.kind is CheckKind.PRESENT:
        is_there = status is not None and not stat.S_ISDIR(status.st_mode)
        return Check(asked.kind, os.fsencode(path)), is_there
    if asked.kind is CheckKind.ABSENT:
        return Check(asked.kind, os.fsencode(path)), not _exists(path)
    values: tuple[int, ...] = (1, 2, 3, 4, 5)
    if status is not None:
        values = signature_of(status)
        if asked.kind is CheckKind.PLACE:
            values = (status.st_dev, status.st_ino, status.st_mode, status.st_uid)
    values = values[: 4 if asked.kind is CheckKind.PLACE else 5]
    if asked.spoilt is not None:
        at = asked.spoilt % len(values)
        values = (*values[:at], values[at] + 1, *values[at + 1 :])
    is_same = status is not None and asked.spoilt is None
    if asked.kind is CheckKind.LACKS:
        is_lacking = is_same or not any(_exists(f"{path}/{name}") for name in NAMES)
        names = tuple(map(os.fsencode, NAMES))
        return Check(asked.kind, os.fsencode(path), values, names), os.path.isdir(
            path
        ) and is_lacking
    return Check(asked.kind, os.fsencode(path), values), is_same


def _exists(path: str) -> bool:
    """Return whether a file exists, or may exist because lstat failed with another error."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def expected(
    before: dict[str, tuple[object, ...]], outputs: list[Wanted], mode: int
) -> tuple[Outcome, dict[str, tuple[object, ...]]]:
    """Return the outcome and the tree after a replay whose checks all hold."""
    after, touched = dict(before), []
    for wanted in outputs:
        path = Path(wanted.path)
        old = after.get(str(path))
        is_placed = path.parent.name in {"", "d", "e"}
        new_mode = mode
        if old is not None:
            kind, data = old
            if kind != stat.S_IFREG:
                is_placed = False
            else:
                assert isinstance(data, tuple)
                is_placed = is_placed and data[2] == 1
                new_mode = data[1] if wanted.keeps_mode else mode
        if not is_placed:
            for name in touched:
                after.pop(name, None)
            return Outcome.NOT_OURS, after
        after[str(path)] = (stat.S_IFREG, (wanted.data, new_mode, 1))
        touched.append(str(path))
    return Outcome.DONE, after


@settings(max_examples=examples(150))
@given(TREES, CHECKS, OUTPUTS, st.sampled_from([0o600, 0o644, 0o666]))
# A file whose signature is the one recorded of a directory: engines that open directories disagreed.
@example({"a": ("file", b"", 0o600)}, [Asked(CheckKind.LACKS, "a", None)], [], 0o600)
def test_engines_and_model_agree(
    tree: dict[str, tuple[str, bytes, int]],
    checks: list[Asked],
    outputs: list[Wanted],
    mode: int,
) -> None:
    for engine in ENGINES:
        root = Path(tempfile.mkdtemp())
        try:
            _agrees(root, engine(), tree, checks, outputs, mode)
        finally:
            shutil.rmtree(root)


def _agrees(
    root: Path,
    engine: Engine,
    tree: dict[str, tuple[str, bytes, int]],
    checks: list[Asked],
    outputs: list[Wanted],
    mode: int,
) -> None:
    build(root, tree)
    before = picture(root)
    looks = [check_of(root, asked) for asked in checks]
    plan = Plan(
        tuple(check for check, _ in looks),
        tuple(OutputFile(bytes(root / w.path), w.data, keeps_mode=w.keeps_mode) for w in outputs),
        mode,
        (0, 0),
        b"",
    )
    outcome, after = expected(before, outputs, mode)
    if not all(holds for _, holds in looks):
        outcome, after = Outcome.CHANGED, before
    assert engine.replay(engine.prepare(plan), -1) == outcome, engine.name
    assert picture(root) == after, engine.name
    for wanted in outputs if outcome is Outcome.DONE else ():
        assert (root / wanted.path).stat().st_mtime > 1, "a file that was served looks new"
