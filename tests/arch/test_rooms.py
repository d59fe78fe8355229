"""The rules for rooms: small packages, plain names, one defining module for each name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FILES = 20
# A room above the limit, with the reason. Empty since the moves; keep it so.
CROWDED: dict[str, str] = {}
# They re-export what others import from them; every other package is imported module by module.
FACES = frozenset({"src/hpcc/core", "src/hpcc/ports", "src/hpcc/files"})
GENERATED = "src/hpcc/_proto/"

OLD = re.compile(
    # Modules had a leading underscore. What the build puts into a wheel still has one.
    r"hpcc(?:\.[a-z]\w*)+\._(?!_)[a-z]\w*"
    r"|hpcc(?:/[a-z]\w*)+/_(?!_|guest\b)[a-z]\w*"
    # The test helpers were a package of the product.
    r"|hpcc[./]testing\b"
    # As prose named a module.
    r"|`_[a-z]\w*\.py`"
)
# Texts that speak of the tree as it was.
OF_THE_PAST = (
    "docs/adr/",  # never rewritten
    "CHANGELOG.md",
    "changes/+testkit.changed.md",
    "tools/move.py",  # with its map: until both are deleted
    "tools/moves.toml",
    "tools/house_figures.py",  # measures commits before and after
    "tools/house_runs.py",
    "tests/unit/tools/test_house_figures.py",
    "tests/arch/test_rooms.py",
)


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--", *patterns], capture_output=True, check=True
    )
    return [name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def modules() -> list[PurePosixPath]:
    found = tracked("src/hpcc/*.py", "testkit/hpcc_testkit/*.py")
    return [PurePosixPath(name) for name in found if not name.startswith(GENERATED)]


def old_names(text: str) -> list[str]:
    """Find old paths. A private name of a module (`hpcc.cache.cache._log`) does not count."""
    found = []
    for match in OLD.findall(text):
        head = match.partition("._")[0]
        if not (ROOT / "src" / head.replace(".", "/")).with_suffix(".py").is_file():
            found.append(match)
    return found


def test_no_room_has_more_than_twenty_modules() -> None:
    sizes = Counter(str(m.parent) for m in modules() if m.name != "__init__.py")
    assert {room: n for room, n in sizes.items() if n > MAX_FILES and room not in CROWDED} == {}
    assert [room for room in CROWDED if sizes[room] <= MAX_FILES] == []


def test_no_module_has_a_leading_underscore() -> None:
    plain = {"__init__", "__main__"}
    assert [str(m) for m in modules() if m.stem.startswith("_") and m.stem not in plain] == []


def test_only_faces_have_more_than_an_essay_in_their_init() -> None:
    for module in modules():
        if module.name != "__init__.py" or str(module.parent) in {*FACES, "src/hpcc"}:
            continue
        body = ast.parse((ROOT / module).read_text()).body
        assert len(body) == 1, module
        assert isinstance(body[0], ast.Expr), module


def test_each_room_has_an_essay() -> None:
    """The essay states the room's job and what it may not do, in two to forty lines."""
    lengths = {
        str(module.parent): len((ast.get_docstring(tree) or "").splitlines())
        for module in modules()
        if module.name == "__init__.py" and str(module).startswith("src/")
        for tree in [ast.parse((ROOT / module).read_text())]
    }
    assert {room: n for room, n in lengths.items() if not 2 <= n <= 40} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from hpcc.daemon._cache import Cache",
        "python -m hpcc.dispatch._main",
        "src/hpcc/wire/_launcher.py",
        "src/hpcc/runtime/_windows_*.py",
        "src/hpcc/cache/key/_share.py",
        "hpcc.testing.wine",
        "see `_launcher.py`",
    ],
)
def test_an_old_path_is_recognised(text: str) -> None:
    assert old_names(text)


@pytest.mark.parametrize(
    "text",
    [
        "from hpcc._proto import agent_pb2",
        "src/hpcc/_proto/agent_pb2.py",
        "hpcc/runtime/_guest/init.c",
        "src/hpcc/cli/__main__.py",
        "hpcc.core.__init__",
        "hpcc_testkit.windows.wine",
        "bench/_projects.py",
        "hpcc.cache.cache._log",
    ],
)
def test_a_path_of_today_is_not(text: str) -> None:
    assert not old_names(text)


def test_no_text_names_a_module_by_its_old_path() -> None:
    found = []
    for name in tracked():
        if name.startswith(OF_THE_PAST):
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            found += [f"{name}:{number}: {old}" for old in old_names(line)]
    assert found == []
