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

type Pairs = tuple[tuple[str, str], ...]
type AskedValues = Mapping[str, tuple[Family, Mapping[Values, float]]]


def exposition(
    registry: Registry,
    asked: AskedValues,
    extra: Iterable[tuple[Family, float]] = (),
    constant: Pairs = (),
) -> bytes:
    """Return all metrics as text. `asked` is from `Registry.ask`; `extra` has no labels.

    `constant` are labels of every series, whose names no family has.
    """
    lines: list[str] = []
    for metric in registry.counted():
        family = metric.family
        lines += _head(family)
        for values, child in metric.snapshot():
            pairs = _pairs(family, values, constant)
            if isinstance(child, Distribution):
                lines += _histogram(family.name, pairs, child)
            else:
                lines.append(_line(family.name, pairs, child.value))
    for family, found in asked.values():
        lines += _head(family)
        lines += [_line(family.name, _pairs(family, v, constant), n) for v, n in found.items()]
    for family, value in extra:
        lines += [*_head(family), _line(family.name, constant, value)]
    return ("\n".join(lines) + "\n").encode()


def _pairs(family: Family, values: Values, constant: Pairs) -> Pairs:
    return (*zip(family.labels, values, strict=True), *constant)


def _head(family: Family) -> tuple[str, str]:
    text = family.text.translate(_HELP_ESCAPES)
    return f"# HELP {family.name} {text}", f"# TYPE {family.name} {family.kind.value}"


def _histogram(name: str, pairs: Pairs, child: Distribution) -> Iterator[str]:
    # One copy, so that count and buckets agree.
    counts, total, below = list(child.counts), child.total, 0
    for bound, count in zip((*map(_number, SECONDS), "+Inf"), counts, strict=True):
        below += count
        yield _line(f"{name}_bucket", (*pairs, ("le", bound)), below)
    yield _line(f"{name}_sum", pairs, total)
    yield _line(f"{name}_count", pairs, below)


def _labels(pairs: Pairs) -> str:
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{_value(value)}"' for name, value in pairs) + "}"


def _value(text: str) -> str:
    """Escape a label's value, first what no terminal can show."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return plain.translate(_ESCAPES)


def _line(name: str, pairs: Pairs, value: float) -> str:
    return f"{name}{_labels(pairs)} {_number(value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(float(value))
