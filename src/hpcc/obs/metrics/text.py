"""Writes metrics in Prometheus' text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/ is the source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from hpcc.obs.metrics.registry import SECONDS, Distribution, Family, Registry, Values

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})

type AskedValues = Mapping[str, tuple[Family, Mapping[Values, float]]]


def exposition(
    registry: Registry, asked: AskedValues, extra: Iterable[tuple[Family, float]] = ()
) -> bytes:
    """Return all metrics as text. `asked` is from `Registry.ask`; `extra` has no labels."""
    lines: list[str] = []
    for metric in registry.counted():
        family = metric.family
        lines += _head(family)
        for values, child in metric.snapshot():
            if isinstance(child, Distribution):
                lines += _histogram(family, values, child)
            else:
                lines.append(_line(family.name, _labels(family.labels, values), child.value))
    for family, found in asked.values():
        lines += _head(family)
        lines += [_line(family.name, _labels(family.labels, v), n) for v, n in found.items()]
    for family, value in extra:
        lines += [*_head(family), _line(family.name, "", value)]
    return ("\n".join(lines) + "\n").encode()


def _head(family: Family) -> tuple[str, str]:
    text = family.text.translate(_HELP_ESCAPES)
    return f"# HELP {family.name} {text}", f"# TYPE {family.name} {family.kind.value}"


def _histogram(family: Family, values: Values, child: Distribution) -> Iterator[str]:
    # One copy, so that count and buckets agree.
    counts, total, below = list(child.counts), child.total, 0
    names = (*family.labels, "le")
    for bound, count in zip((*map(_number, SECONDS), "+Inf"), counts, strict=True):
        below += count
        yield _line(f"{family.name}_bucket", _labels(names, (*values, bound)), below)
    labels = _labels(family.labels, values)
    yield _line(f"{family.name}_sum", labels, total)
    yield _line(f"{family.name}_count", labels, below)


def _labels(names: tuple[str, ...], values: Values) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_value(value)}"' for name, value in pairs) + "}"


def _value(text: str) -> str:
    """Escape a label's value, first what no terminal can show."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return plain.translate(_ESCAPES)


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{labels} {_number(value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(float(value))
