"""The hash of an item changes with its case, its files and their imports, but not with prose."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from hpcc_testkit.suite.source_hash import SourceHashes

HALF = 16
# The package of test helpers: the one that holds the code under test.
HELPERS = SourceHashes.__module__.rpartition(".")[0]
TEST = "tests/unit/test_lock.py"
TREE = {
    "src/shop/__init__.py": '"""A package."""\nfrom shop._door import Door as Door\n',
    "src/shop/_door.py": '"""Doors."""\nfrom shop.wood import OAK\n\n\nclass Door:\n    kind = OAK\n',
    "src/shop/wood.py": "OAK = 1\n",
    "src/shop/lock.py": '"""Locks."""\n\n\ndef turn(key: int) -> bool:\n    return key == 3\n',
    "src/shop/worker.py": "import sys\n",
    f"src/{HELPERS.replace('.', '/')}/tool.py": "from shop.wood import OAK\n",
    "native/replay.c": "int main(void) { return 0; }\n",
    "tests/conftest.py": "import pytest\n",
    "tests/unit/conftest.py": "from shop import Door\n",
    TEST: '"""Tests."""\nfrom shop.lock import turn\n\nPROGRAM = ["-m", "shop.worker"]\n\n\n'
    'def test_a_key_turns() -> None:\n    """It does."""\n    assert turn(3)\n',
}


class Case(NamedTuple):
    file: str = "lock.py"
    check: str = "key == 3"
    without: str = "True"
    test: str = f"{TEST}::test_a_key_turns"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def row(tree: Path, case: Case | None = None) -> str:
    case = case or Case()
    return SourceHashes(tree).of_row(case, case.file, [tree / TEST])


def halves_that_differ(before: str, after: str) -> str:
    own = "own" if before[:HALF] != after[:HALF] else ""
    return own + (" imports" if before[HALF:] != after[HALF:] else "")


def edit(tree: Path, name: str, old: str, new: str) -> None:
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new))


def test_a_hash_is_two_halves_and_stays_the_same(tree: Path) -> None:
    assert row(tree) == row(tree)
    assert len(row(tree)) == 2 * HALF


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("src/shop/lock.py", '"""Locks."""', '"""Locks, in other words.\n\nAt length."""'),
        ("src/shop/lock.py", "    return", "    # Why.\n    return"),
        (TEST, '"""It does."""', '"""It turns."""'),
        ("src/shop/_door.py", '"""Doors."""', '"""Gates."""'),
        ("src/shop/lock.py", "key == 3", "(key   ==   3)"),
    ],
)
def test_an_edit_of_prose_or_layout_changes_nothing(
    tree: Path, name: str, old: str, new: str
) -> None:
    before = row(tree)
    edit(tree, name, old, new)
    assert row(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "differs"),
    [
        ("src/shop/lock.py", "key == 3", "key == 4", "own imports"),  # the file of the row
        (TEST, "turn(3)", "turn(4)", "own imports"),  # the test of the row
        ("src/shop/_door.py", "kind = OAK", "kind = 2", " imports"),  # behind a re-export
        ("src/shop/worker.py", "import sys", "import os", " imports"),  # started by `python -m`
        ("tests/unit/conftest.py", "import Door", "import Door as D", " imports"),
        ("tests/conftest.py", "import pytest", "import os", " imports"),
        ("src/shop/wood.py", "OAK = 1", "OAK = 2", ""),  # an import of an import
        ("native/replay.c", "return 0", "return 1", ""),
    ],
)
def test_an_edit_of_code_changes_the_half_it_is_in(
    tree: Path, name: str, old: str, new: str, differs: str
) -> None:
    before = row(tree)
    edit(tree, name, old, new)
    assert halves_that_differ(before, row(tree)) == differs


@pytest.mark.parametrize("field", Case._fields)
def test_each_field_of_a_case_is_hashed(tree: Path, field: str) -> None:
    other = Case()._replace(**{field: "native/replay.c" if field == "file" else "another"})
    assert halves_that_differ(row(tree), row(tree, other)).startswith("own")


def test_a_row_may_change_a_file_outside_the_packages(tree: Path) -> None:
    hashes = SourceHashes(tree)
    assert hashes.changed_file("native/replay.c") == tree / "native/replay.c"
    assert hashes.changed_file("lock.py") == tree / "src/shop/lock.py"
    assert hashes.digest(hashes.changed_file("missing.py")) == "absent"


def test_a_wine_or_nested_test_depends_on_c_files_and_on_its_helpers_imports(tree: Path) -> None:
    path = tree / TEST
    edit(tree, TEST, "from shop.lock", f"import {HELPERS}.tool\nfrom shop.lock")
    before = SourceHashes(tree).of_test(path)
    edit(tree, "src/shop/wood.py", "OAK = 1", "OAK = 2")
    after = SourceHashes(tree).of_test(path)
    assert halves_that_differ(before, after) == " imports"
    edit(tree, "native/replay.c", "return 0", "return 1")
    assert halves_that_differ(after, SourceHashes(tree).of_test(path)) == " imports"


def test_a_file_that_is_no_python_is_hashed_as_it_is(tree: Path) -> None:
    (tree / "src/shop/lock.py").write_text("def (:\n")
    before = row(tree)
    (tree / "src/shop/lock.py").write_text("def (:  # why\n")
    assert row(tree) != before


def test_packages_that_import_each_other_end_the_search(tree: Path) -> None:
    (tree / "src/shop/__init__.py").write_text("from ring import Door\n")
    (tree / "src/ring").mkdir()
    (tree / "src/ring/__init__.py").write_text("from shop import Door\n")
    assert len(row(tree)) == 2 * HALF
