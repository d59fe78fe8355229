"""Counters, gauges and histograms of one process. Does no I/O.

The problem: a label's value often comes from outside, and each new value is a new series that the
process and Prometheus keep. So the number of series is bounded in two ways:

- `Words` is a closed set that fills as values come: the first 64 tenants by name, for example.
  Further values are `_other`, which no tenant and no reason can be called.
- A metric has at most `most` combinations of label values, and `_other` for the rest. The registry
  adds these limits up when metrics are declared and refuses a sum over `MAX_SERIES`.

What must never happen: a caller's text becomes a label unchecked, or a scrape waits for a lock that
a compile holds. One thread writes. Another may read at any time: a single number or a copy of a
dict is read whole, so a scrape sees each number as it was at some moment of the scrape.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

# Of one process, with 10,000 tenants and as many reasons.
MAX_SERIES: Final = 5_000
# The value of a label beyond its closed set. Names and reasons have no underscore.
OTHER: Final = "_other"
MAX_TENANTS: Final = 64
_MAX_VALUE_CHARS: Final = 128
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
# Upper bounds in seconds, from a route (under a millisecond) to the longest compile.
SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

type Values = tuple[str, ...]
# What a gauge or a counter that is read on demand shows now.
type Reader = Callable[[], Iterable[tuple[Values, float]]]


class Kind(enum.Enum):
    """The types of a metric, by Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric's name and meaning. `most` bounds the combinations of its labels' values."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...]
    most: int

    @property
    def series(self) -> int:
        """How many series it can have."""
        each = len(SECONDS) + 3 if self.kind is Kind.HISTOGRAM else 1
        # One combination more for the rest.
        return each * (self.most + 1 if self.labels else 1)


class Words:
    """The values of a label that are shown by name: the first `most` that come."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, None] = {}

    def known(self, word: str) -> str:
        """Return a value, or `OTHER` if it is not among the first."""
        if word in self._known:
            return word
        if len(self._known) >= self._most or len(word) > _MAX_VALUE_CHARS:
            return OTHER
        self._known[word] = None
        return word


class Number:
    """The value of one counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Add to the value. A counter only grows."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace the value of a gauge."""
        self.value = value


class Distribution:
    """How often values fell below each of the bounds of a histogram."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count a value. A clock that was set back counts as zero."""
        seconds = max(seconds, 0.0)
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class Metric[C: (Number, Distribution)]:
    """A metric whose values the service itself counts."""

    def __init__(self, family: Family, make: Callable[[], C]) -> None:
        self.family = family
        self._make: Callable[[], C] = make
        self._children: dict[Values, C] = {}
        if not family.labels:
            self._children[()] = make()

    def of(self, *values: str) -> C:
        """Return the value for these labels, in their order; keep it where it is used often."""
        child = self._children.get(values)
        return child if child is not None else self._add(values)

    def snapshot(self) -> list[tuple[Values, C]]:
        """Return all values; any thread may call this."""
        return list(self._children.items())

    def _add(self, values: Values) -> C:
        assert len(values) == len(self.family.labels), self.family.name
        rest = (OTHER,) * len(values)
        # The rest has a place beside the others, and takes none from a name that comes later.
        if len(self._children) - (rest in self._children) >= self.family.most:
            values = rest
        values = tuple(v if len(v) <= _MAX_VALUE_CHARS else OTHER for v in values)
        return self._children.setdefault(values, self._make())


class Asked:
    """A metric whose values are read when somebody asks. `read` is set by the part that knows."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.read: Reader | None = None

    def values(self) -> dict[Values, float]:
        """Return the values now; those beyond the limit are added up. For the service's thread."""
        found: dict[Values, float] = {}
        for given, value in self.read() if self.read is not None else ():
            assert len(given) == len(self.family.labels), self.family.name
            values, rest = given, (OTHER,) * len(given)
            if values not in found and len(found) - (rest in found) >= self.family.most:
                values = rest
            found[values] = found.get(values, 0.0) + value
        return found


class Registry:
    """All metrics of a process, in the order in which they were declared."""

    def __init__(self) -> None:
        self._counted: dict[str, Metric[Number] | Metric[Distribution]] = {}
        self._asked: dict[str, Asked] = {}
        # The same tenants have their names in every metric.
        self.tenants = Words(MAX_TENANTS)

    @property
    def families(self) -> tuple[Family, ...]:
        """What the process can show."""
        return tuple(m.family for m in (*self._counted.values(), *self._asked.values()))

    @property
    def most_series(self) -> int:
        """How many series the process can have at most."""
        return sum(family.series for family in self.families)

    def counter(self, name: str, text: str, *labels: str, most: int = 64) -> Metric[Number]:
        """Declare a counter, whose name ends in `_total`."""
        assert name.endswith("_total"), name
        return self._count(self._family(name, Kind.COUNTER, text, labels, most), Number)

    def gauge(self, name: str, text: str, *labels: str, most: int = 64) -> Metric[Number]:
        """Declare a gauge."""
        return self._count(self._family(name, Kind.GAUGE, text, labels, most), Number)

    def histogram(self, name: str, text: str, *labels: str, most: int = 64) -> Metric[Distribution]:
        """Declare a histogram of seconds."""
        assert name.endswith("_seconds"), name
        return self._count(self._family(name, Kind.HISTOGRAM, text, labels, most), Distribution)

    def asked_gauge(self, name: str, text: str, *labels: str, most: int = 64) -> Asked:
        """Declare a gauge that is read on demand."""
        return self._ask(self._family(name, Kind.GAUGE, text, labels, most))

    def asked_counter(self, name: str, text: str, *labels: str, most: int = 64) -> Asked:
        """Declare a counter that another part counts, and that is read on demand."""
        assert name.endswith("_total"), name
        return self._ask(self._family(name, Kind.COUNTER, text, labels, most))

    def counted(self) -> list[Metric[Number] | Metric[Distribution]]:
        """Return the metrics that the service counts itself."""
        return list(self._counted.values())

    def ask(self) -> Mapping[str, tuple[Family, Mapping[Values, float]]]:
        """Read the metrics that are read on demand, by name. For the service's own thread."""
        return {name: (asked.family, asked.values()) for name, asked in self._asked.items()}

    def _family(
        self, name: str, kind: Kind, text: str, labels: tuple[str, ...], most: int
    ) -> Family:
        assert _NAME.fullmatch(name), name
        assert all(map(_NAME.fullmatch, labels)), labels
        assert name not in self._counted and name not in self._asked, name  # noqa: PT018 - one rule
        family = Family(name=name, kind=kind, text=text, labels=labels, most=most)
        assert self.most_series + family.series <= MAX_SERIES, f"{name}: too many series"
        return family

    def _count[C: (Number, Distribution)](self, family: Family, make: Callable[[], C]) -> Metric[C]:
        metric = Metric(family, make)
        self._counted[family.name] = cast("Metric[Number] | Metric[Distribution]", metric)
        return metric

    def _ask(self, family: Family) -> Asked:
        asked = self._asked[family.name] = Asked(family)
        return asked
