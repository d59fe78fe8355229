"""Each mutation row names a file, a text that occurs once in it, and a test that exists.

The nightly runs the rows. This test finds a moved file or a reworded line within a second.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rows() -> Iterator[tuple[str, str, Any]]:
    """Yield (module, row's name, row) of every `CASES` below tests/mutation."""
    for file in sorted((ROOT / "tests/mutation").glob("test_*.py")):
        name = f"rows_of_{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look there
        spec.loader.exec_module(module)
        for key, case in module.CASES.items():
            yield file.stem, key, case


@cache
def functions(file: Path) -> frozenset[str]:
    """Return the names of all functions and classes in a test file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = ast.walk(ast.parse(file.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, kinds))


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{module}-{key}") for module, key, case in rows()]
)
def test_a_row_can_be_carried_out(case: Any) -> None:
    is_of_root = case.file.startswith(("native/", "tools/"))
    file = ROOT / (case.file if is_of_root else f"src/hpcc/{case.file}")
    assert file.read_text().count(case.check) == 1
    path, _, names = case.test.partition("::")
    assert (ROOT / path).is_file()
    wanted = {name.partition("[")[0] for name in names.split("::") if name}
    assert wanted <= functions(ROOT / path)
