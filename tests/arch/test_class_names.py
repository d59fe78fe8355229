"""No two public classes of the product share a name: one name, one meaning."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

PRODUCT = Path(__file__).resolve().parents[2] / "src/hpcc"
# A name that two classes may share, and why. Empty: keep it so.
ALLOWED: Mapping[str, str] = {}


def public_classes(source: str) -> list[str]:
    """Return the names of a module's public classes."""
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return [node.name for node in classes if not node.name.startswith("_")]


def shared_names(sources: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Return each class name that several modules define, with the paths of these modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, source in sources.items():
        for name in public_classes(source):
            places[name].append(path)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_two_public_classes_have_the_same_name() -> None:
    sources = {
        str(path.relative_to(PRODUCT)): path.read_text()
        for path in sorted(PRODUCT.rglob("*.py"))
        if "_proto" not in path.parts
    }
    assert len(sources) > 100
    shared = shared_names(sources)
    assert {n: p for n, p in shared.items() if n not in ALLOWED} == {}
    assert set(ALLOWED) <= set(shared), "remove what is no longer shared from ALLOWED"


def test_a_name_that_two_modules_define_is_found() -> None:
    sources = {
        "a.py": "class Call: ...\nclass _Own: ...",
        "b.py": "class Call: ...\nclass _Own: ...",
    }
    assert shared_names(sources) == {"Call": ["a.py", "b.py"]}
