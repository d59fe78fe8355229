"""Decides which tests a run takes and which stage of `make nightly` each test belongs to.

Tests have one of five kinds. Plain tests run each time. Mutation rows, Wine tests, nested-VM tests
and tests marked `nightly` ("items") cost most of the suite's time. `./test.sh` runs only those
whose hash differs from `tests/nightly.lock`, the hashes at the last green nightly, up to a bound in
seconds for each kind.

Where more items differ than the bound allows, items whose own text changed come first. Among equals
the run takes one batch of a fixed division; a seed that moves each day picks it, so every item gets
its turn. Everything here is a pure function: each worker of a parallel run must decide the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Final

_OWN_DIGITS: Final = 16


class Kind(StrEnum):
    """What a test costs; also the name of its pytest marker, except for `PLAIN`."""

    PLAIN = "plain"
    MUTATION = "mutation"
    WINE = "wine"
    NESTED = "nested"
    NIGHTLY = "nightly"


# Worker-seconds that a run may spend on items of each kind.
BOUNDS: Final[Mapping[Kind, float]] = {
    Kind.MUTATION: 120,
    Kind.WINE: 60,
    Kind.NESTED: 120,
    Kind.NIGHTLY: 60,
}
# Estimates for an item that no kept report names: means of a whole run on two cores.
DEFAULT_SECONDS: Final[Mapping[Kind, float]] = {
    Kind.MUTATION: 3,
    Kind.WINE: 4,
    Kind.NESTED: 8,
    Kind.NIGHTLY: 30,
}

# Stages of pytest in `make nightly`: a kind's own, else the first directory that holds the test.
_STAGE_OF_KIND: Final = {
    Kind.MUTATION: "mutation",
    Kind.WINE: "windows",
    Kind.NESTED: "nested",
}
_STAGE_OF_DIRECTORY: Final = {"integration": "integration", "vm": "guests", "e2e": "guests"}
_OTHER_STAGE: Final = "fast"
PYTEST_STAGES: Final = ("fast", "integration", "mutation", "windows", "guests", "nested")


@dataclass(frozen=True, slots=True)
class Item:
    """A test with its kind, its hash ("" for plain tests) and an estimate in seconds."""

    node_id: str
    kind: Kind
    digest: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Node ids of the tests that run, and of the items that are left out, by reason."""

    taken: frozenset[str]
    unchanged: tuple[str, ...]
    over_bound: tuple[str, ...]


def stage_of(node_id: str, kind: Kind) -> str:
    """Return the nightly stage of a test. Total, so the stages are a partition of all tests."""
    if kind in _STAGE_OF_KIND:
        return _STAGE_OF_KIND[kind]
    directories = node_id.partition("::")[0].split("/")[1:-1]
    return _STAGE_OF_DIRECTORY.get(next(iter(directories), ""), _OTHER_STAGE)


def choose(
    items: Sequence[Item],
    known: Mapping[str, str],
    seed: int,
    bounds: Mapping[Kind, float] = BOUNDS,
) -> Selection:
    """Return the tests to run: all plain ones, and items that differ from `known`, within bounds.

    Args:
        items: all tests that were collected.
        known: hash at the last green nightly, by node id.
        seed: any integer; consecutive values take consecutive batches.
        bounds: worker-seconds for each kind.
    """
    unchanged = tuple(i.node_id for i in items if i.kind in bounds and _is_same(i, known))
    differing = [i for i in items if i.kind in bounds and not _is_same(i, known)]
    taken = {i.node_id for i in items if i.kind not in bounds}
    for kind, bound in bounds.items():
        taken |= _within(bound, [i for i in differing if i.kind is kind], known, seed)
    over = tuple(i.node_id for i in differing if i.node_id not in taken)
    return Selection(frozenset(taken), unchanged, over)


def _is_same(item: Item, known: Mapping[str, str]) -> bool:
    return known.get(item.node_id) == item.digest


def _within(bound: float, items: Sequence[Item], known: Mapping[str, str], seed: int) -> set[str]:
    """Return the items that fit: first those whose own text changed, then one batch of the rest."""
    is_own = {i.node_id: _own_text_changed(i, known) for i in items}
    taken: set[str] = set()
    room = bound
    for wanted in (True, False):
        group = [i for i in items if is_own[i.node_id] is wanted]
        batch = _batch(group, room, seed)
        taken |= {i.node_id for i in batch}
        room -= sum(i.seconds for i in batch)
    return taken


def _own_text_changed(item: Item, known: Mapping[str, str]) -> bool:
    return known.get(item.node_id, "")[:_OWN_DIGITS] != item.digest[:_OWN_DIGITS]


def _batch(items: Sequence[Item], room: float, seed: int) -> list[Item]:
    """Return the items whose turn it is, at most `room` seconds of them.

    The items form a ring, cut into batches that fit. The turn starts at one of the cuts and goes on
    until the room is used, so a short last batch is filled up. An item longer than the room has a
    turn by itself, because otherwise it would never run.
    """
    if room <= 0 or not items:
        return []
    # By a hash of the name, so that neighbours, which resemble each other, run on different days.
    ring = sorted(items, key=lambda i: hashlib.sha256(i.node_id.encode()).digest())
    cuts = [0]
    while (end := cuts[-1] + _fitting(ring[cuts[-1] :], room)) < len(ring):
        cuts.append(end)
    start = cuts[seed % len(cuts)]
    turned = ring[start:] + ring[:start]
    return turned[: _fitting(turned, room)]


def _fitting(items: Sequence[Item], room: float) -> int:
    """Return how many of the first items fit; one at least."""
    for count, end in enumerate(accumulate(i.seconds for i in items)):
        if end > room:
            return max(count, 1)
    return len(items)
