"""Divides the places of a farm among those who want them. Pure.

Weighted max-min fairness, three times: the farm's places among tenants, a tenant's among its
principals, a principal's among the workers where it has compiles. Nobody gets more than it wants,
and what one does not want goes to the others. Then each worker gives what is still free there, so
that no place is idle while somebody wants it.

Example: 10 places. One tenant wants 40, another 4: 6 and 4. When the other wants none: 10 and 0.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

# Of a worker, a tenant and a principal of it.
type Cell = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`limits`: the most that a tenant gets; none if it is absent. `weights`: 1 if absent.

    `capacities`: the places of the workers. `turn`: another number gives what cannot be divided
    to others.
    """

    capacities: Mapping[str, int]
    limits: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    turn: int = 0


def divide(wants: Mapping[Cell, int], rules: Rules) -> dict[Cell, int]:
    """Return how many places each gets of what it wants."""
    wants = {cell: min(n, rules.capacities.get(cell[0], n)) for cell, n in wants.items()}
    crowds = Counter[str]()
    of_tenant = defaultdict[str, Counter[str]](Counter)
    cells = defaultdict[tuple[str, str], dict[Cell, int]](dict)
    for cell, wanted in wants.items():
        worker, tenant, principal = cell
        crowds[worker] += wanted
        of_tenant[tenant][principal] += wanted
        cells[tenant, principal][cell] = wanted
    demand = {
        tenant: min(people.total(), rules.limits.get(tenant, people.total()))
        for tenant, people in of_tenant.items()
    }
    places = sum(rules.capacities.values()) or sum(demand.values())
    given = dict[Cell, int]()
    tenants = level(demand, places, weights=rules.weights, turn=rules.turn)
    for tenant, share in tenants.items():
        people = level(of_tenant[tenant], share, turn=rules.turn)
        for principal, part in people.items():
            given |= _spread(cells[tenant, principal], part, crowds, rules)
    return _fill(wants, given, rules)


def _spread(
    own: Mapping[Cell, int], part: int, crowds: Mapping[str, int], rules: Rules
) -> dict[Cell, int]:
    """Divide a principal's places: first to the workers where others do not want them."""
    free = {
        cell: max(min(n, rules.capacities.get(cell[0], n) - crowds[cell[0]] + n), 0)
        for cell, n in own.items()
    }
    given = level(free, part, turn=rules.turn)
    rest = {cell: n - given[cell] for cell, n in own.items()}
    more = level(rest, part - sum(given.values()), turn=rules.turn)
    return {cell: places + more[cell] for cell, places in given.items()}


def _fill(wants: Mapping[Cell, int], given: dict[Cell, int], rules: Rules) -> dict[Cell, int]:
    """Give the places that are free at a worker to those who want more there."""
    at = defaultdict[str, list[Cell]](list)
    totals = Counter[str]()
    for cell, places in given.items():
        at[cell[0]].append(cell)
        totals[cell[1]] += places
    for worker, cells in at.items():
        free = rules.capacities.get(worker, 0) - sum(given[c] for c in cells)
        while free > 0:
            more = {}
            for cell in cells:
                room = rules.limits.get(cell[1], wants[cell] + totals[cell[1]]) - totals[cell[1]]
                more[cell] = min(wants[cell] - given[cell], room)
            if not any(more.values()):
                break
            for cell, places in level(more, free, turn=rules.turn).items():
                room = rules.limits.get(cell[1], places + totals[cell[1]]) - totals[cell[1]]
                added = min(places, room)
                given[cell] += added
                totals[cell[1]] += added
                free -= added
    return given


def level[K: (str, Cell)](
    wants: Mapping[K, int], total: int, *, weights: Mapping[K, int] | None = None, turn: int = 0
) -> dict[K, int]:
    """Divide `total` so that the least served gets as much as it can, in parts of its weight.

    What cannot be divided goes to others in each turn.
    """
    weight = {key: (weights or {}).get(key, 1) for key in wants}
    rest = sorted(wants, key=lambda key: wants[key] / weight[key])
    left, parts = total, sum(weight.values())
    given = dict[K, int]()
    for key in rest:
        if wants[key] * parts > left * weight[key]:
            break
        given[key] = wants[key]
        left, parts = left - wants[key], parts - weight[key]
    rest = sorted(rest[len(given) :])
    given |= {key: left * weight[key] // parts for key in rest}
    spare = left - sum(given[key] for key in rest) if rest else 0
    for number in range(spare):
        given[rest[(turn * spare + number) % len(rest)]] += 1
    return given
