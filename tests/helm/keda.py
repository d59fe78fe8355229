"""Checks objects of KEDA against the types that a published package makes from KEDA's own.

The package (cloudcoil-models-keda, Apache-2.0) has one class for each type, with annotations for
pydantic. They are read here as text, so neither pydantic nor the package's own needs are installed.
A field that KEDA does not have is a fault here; a cluster would drop it without a word.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

_SCALARS: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "bool": bool, "float": (int, float),
}  # fmt: skip


class Models:
    """The classes of one module, by name: each field's name in YAML, and its annotation."""

    def __init__(self, path: Path) -> None:
        tree = ast.parse(path.read_text())
        self._classes: dict[str, dict[str, tuple[ast.expr, bool]]] = {}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                self._classes[node.name] = dict(
                    self._field(f) for f in node.body if self._is_field(f)
                )

    @staticmethod
    def _is_field(node: ast.stmt) -> bool:
        return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)

    @staticmethod
    def _field(node: ast.stmt) -> tuple[str, tuple[ast.expr, bool]]:
        assert isinstance(node, ast.AnnAssign)
        assert isinstance(node.target, ast.Name)
        name, kind = node.target.id, node.annotation
        if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Annotated":
            assert isinstance(kind.slice, ast.Tuple)
            kind, *more = kind.slice.elts
            for call in more:
                assert isinstance(call, ast.Call)
                aliases = [k.value for k in call.keywords if k.arg == "alias"]
                name = next((a.value for a in aliases if isinstance(a, ast.Constant)), name)
        return str(name), (kind, node.value is None)

    def faults(self, item: dict[str, Any]) -> list[str]:
        """Return what is wrong with an object; its kind is the class."""
        if item["kind"] not in self._classes:
            return [f"KEDA has no kind {item['kind']}"]
        inner = {k: v for k, v in item.items() if k != "metadata"}
        return self._object(item["kind"], inner, item["kind"], left_out={"metadata"})

    def _object(
        self, kind: str, value: object, where: str, left_out: set[str] | None = None
    ) -> list[str]:
        known = self._classes[kind]
        if not isinstance(value, dict):
            return [f"{where} is not an object"]
        found = [f"{where} has no field {key}" for key in value if key not in known]
        for name, (annotation, is_needed) in known.items():
            if name in value:
                found += self._value(annotation, value[name], f"{where}.{name}")
            elif is_needed and name not in (left_out or ()):
                found.append(f"{where} lacks {name}")
        return found

    def _value(self, kind: ast.expr, value: object, where: str) -> list[str]:
        if isinstance(kind, ast.Subscript):
            return self._generic(ast.unparse(kind.value), kind.slice, value, where)
        name = ast.unparse(kind)
        if name in self._classes:
            return self._object(name, value, where)
        scalar = _SCALARS.get(name)
        if scalar is None:
            return [f"{where}: the type {name} is not known here"]
        is_flag = isinstance(value, bool) and name != "bool"
        return [] if isinstance(value, scalar) and not is_flag else [f"{where} is not {name}"]

    def _generic(self, outer: str, inner: ast.expr, value: object, where: str) -> list[str]:
        match outer:
            case "Optional":
                return [] if value is None else self._value(inner, value, where)
            case "Literal":
                words = ast.literal_eval(inner)
                words = words if isinstance(words, tuple) else (words,)
                return [] if value in words else [f"{where} must be one of {words}"]
            case "List":
                if not isinstance(value, list):
                    return [f"{where} is not a list"]
                return [
                    fault
                    for n, entry in enumerate(value)
                    for fault in self._value(inner, entry, f"{where}[{n}]")
                ]
            case "Dict":
                return self._mapping(inner, value, where)
            case "Union":
                assert isinstance(inner, ast.Tuple)
                return min((self._value(one, value, where) for one in inner.elts), key=len)
        return [f"{where}: the type {outer} is not known here"]

    def _mapping(self, inner: ast.expr, value: object, where: str) -> list[str]:
        assert isinstance(inner, ast.Tuple)
        if not isinstance(value, dict):
            return [f"{where} is not an object"]
        return [
            fault
            for key, entry in value.items()
            for fault in self._value(inner.elts[1], entry, f"{where}.{key}")
        ]
