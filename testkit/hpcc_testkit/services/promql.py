"""Finds the names in an expression of PromQL. Whether the expression is right, Prometheus says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_LABELS: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE: Final = re.compile(r"\[[^\]]*\]|\boffset\s+\S+")
_NAME: Final = re.compile(r"(?<![\w.:$])([a-zA-Z_:][\w:]*)(\{[^}]*\})?\s*(\()?")
_MATCHER: Final = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_OPERATORS: Final = frozenset({"and", "or", "unless", "bool", "inf", "nan"})


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric in an expression: its name, the labels it is selected by, and the text of both."""

    metric: str
    labels: frozenset[str]
    text: str


def selectors(expression: str) -> list[Selector]:
    """Return the metrics of an expression, in their order."""
    plain = _without_strings(expression)
    for pattern in (_LABELS, _RANGE):
        plain = pattern.sub(lambda match: " " * len(match[0]), plain)
    found = []
    for match in _NAME.finditer(plain):
        is_call = match[3] is not None
        if not is_call and match[1] not in _OPERATORS:
            labels = frozenset(_MATCHER.findall(match[2] or ""))
            end = match.end(2) if match[2] else match.end(1)
            found.append(Selector(match[1], labels, expression[match.start() : end]))
    return found


def _without_strings(expression: str) -> str:
    """Blank the content of strings; each name keeps its place."""
    return _STRING.sub(lambda match: '"' + " " * (len(match[0]) - 2) + '"', expression)


def grouping(expression: str) -> frozenset[str]:
    """Return the labels that an expression groups or joins by."""
    found = _LABELS.findall(_without_strings(expression))
    return frozenset(name for names in found for name in re.findall(r"\w+", names))
