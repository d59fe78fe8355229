"""Reads an admin port as Prometheus does, and refuses what it or `promtool` would complain about.

The parser takes the text format 0.0.4 and nothing more: each line is checked against the format's
grammar, each family for its order and completeness, and each name by the rules of `promtool check
metrics`. tests/integration/operated/test_monitoring.py asks promtool itself.
"""

from __future__ import annotations

import http.client
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_HELP: Final = re.compile(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)+)")
_TYPE: Final = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)")
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_VALUE: Final = re.compile(r"\+Inf|-Inf|NaN|-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_UNITS: Final = re.compile(r"_(ms|us|minutes|hours|kb|mb|gb|percent|milliseconds)(_|$)")
_TIMEOUT_SECONDS: Final = 20.0

Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class ScrapedFamily:
    """One metric: its samples by full name (`x_bucket`) and labels, in their order."""

    name: str
    kind: str
    text: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


class Scrape:
    """One answer of an admin port, parsed."""

    def __init__(self, body: bytes) -> None:
        """Parse; every deviation is an `AssertionError`."""
        self.text = body.decode()
        self.families = _families(self.text)

    @property
    def series(self) -> int:
        """How many time series there are."""
        return sum(len(f.samples) for f in self.families.values())

    def value(self, name: str, /, **labels: str) -> float:
        """Return the value of one series; a counter that has not begun is 0."""
        family = self.families.get(name) or self.families[re.sub(r"_(count|sum|bucket)$", "", name)]
        return family.samples.get((name, frozenset(labels.items())), 0.0)

    def values(self, name: str) -> dict[Labels, float]:
        """Return all values of a metric by labels."""
        found = self.families[name].samples
        return {labels: value for (full, labels), value in found.items() if full == name}

    def total(self, name: str, /, **labels: str) -> float:
        """Return the sum over all series that have these labels."""
        wanted = set(labels.items())
        return sum(v for found, v in self.values(name).items() if wanted <= found)


def fetch(
    address: str, target: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, bytes]:
    """Ask an admin port; return status and body."""
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def scrape(address: str) -> Scrape:
    """Fetch and check the metrics of a service."""
    status, body = fetch(address)
    assert status == 200, (status, body)
    return Scrape(body)


def _families(text: str) -> dict[str, ScrapedFamily]:
    assert text.endswith("\n"), "the last line has no end"
    assert "\r" not in text
    families: dict[str, ScrapedFamily] = {}
    lines = text[:-1].split("\n")
    at = 0
    while at < len(lines):
        said, kind = _HELP.fullmatch(lines[at]), _TYPE.fullmatch(lines[at + 1])
        assert said, lines[at]
        assert kind, lines[at + 1]
        name = said[1]
        assert name == kind[1], (name, kind[1])
        assert name not in families, f"{name} comes twice"
        family = families[name] = ScrapedFamily(name, kind[2], said[2])
        at += 2
        while at < len(lines) and not lines[at].startswith("#"):
            _sample(family, lines[at])
            at += 1
        _check(family)
    return families


def _sample(family: ScrapedFamily, line: str) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match, line
    name, labels, value = match.groups()
    assert _VALUE.fullmatch(value), line
    suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
    assert name in {family.name + s for s in suffixes}, line
    key = (name, frozenset(_labels(labels)))
    assert key not in family.samples, f"a series comes twice: {line}"
    family.samples[key] = math.inf if value == "+Inf" else float(value)


def _labels(text: str | None) -> list[tuple[str, str]]:
    if text is None:
        return []
    found, at = [], 0
    while at < len(text):
        match = _LABEL.match(text, at)
        assert match, text
        value = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[2])
        found.append((match[1], value))
        at = match.end()
    assert found, "empty braces"
    assert not text.endswith(","), text
    names = [name for name, _ in found]
    assert len(names) == len(set(names)), text
    return found


def _check(family: ScrapedFamily) -> None:
    name = family.name
    assert _NAME.fullmatch(name)
    assert name.startswith(("hpcc_", "process_")), name
    assert name.islower(), name
    assert not _UNITS.search(name), f"{name}: not a base unit"
    assert (family.kind == "counter") == name.endswith("_total"), name
    assert not name.endswith(("_count", "_sum", "_bucket")), name
    for (_, labels), value in family.samples.items():
        if family.kind == "counter":
            assert value >= 0, name
        if family.kind != "histogram":
            assert "le" not in dict(labels), name
    if family.kind == "histogram":
        _check_histogram(family)


def _check_histogram(family: ScrapedFamily) -> None:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for (name, labels), value in family.samples.items():
        if name.endswith("_bucket"):
            bound = float(dict(labels)["le"].replace("+Inf", "inf"))
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            groups.setdefault(rest, []).append((bound, value))
    for labels, buckets in groups.items():
        _check_buckets(buckets)
        assert (family.name + "_sum", labels) in family.samples, family.name
        assert family.samples[family.name + "_count", labels] == buckets[-1][1], family.name
    counts = sum(name.endswith("_count") for name, _ in family.samples)
    assert counts == len(groups), family.name


def _check_buckets(buckets: Iterable[tuple[float, float]]) -> None:
    bounds, counts = zip(*buckets, strict=True)
    assert list(bounds) == sorted(set(bounds)), bounds
    assert bounds[-1] == math.inf, bounds
    assert list(counts) == sorted(counts), counts
