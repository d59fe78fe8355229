"""Orders the waiters for guests by turns. Pure; a tenant's flood delays only that tenant.

Tenants take turns. Within a tenant, the domain with the oldest waiter goes first. Within a domain,
waiters are served in the order of arrival. When the queue is full, a newcomer displaces the
youngest waiter of the largest share if that share is larger by two or more; else it is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from hpcc.core import TenantId
from hpcc.worker.base.domain import TrustDomain

type _Line = OrderedDict[int, None]


class FairQueue:
    """Waiters (ascending numbers) by tenant and trust domain."""

    def __init__(self, max_waiters: int) -> None:
        self._max_waiters = max_waiters
        # In the order of turns.
        self._tenants: OrderedDict[TenantId, dict[TrustDomain, _Line]] = OrderedDict()
        self._domains: dict[int, TrustDomain] = {}

    def __len__(self) -> int:
        return len(self._domains)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._max_waiters

    @property
    def by_tenant(self) -> dict[TenantId, int]:
        """How many wait, by tenant; only tenants of whom somebody waits."""
        return {tenant: self._tenant_count(tenant) for tenant in self._tenants}

    def add(self, waiter: int, domain: TrustDomain) -> None:
        self._tenants.setdefault(domain.tenant, {}).setdefault(domain, OrderedDict())[waiter] = None
        self._domains[waiter] = domain

    def discard(self, waiter: int) -> None:
        domain = self._domains.pop(waiter, None)
        if domain is None:
            return
        lines = self._tenants[domain.tenant]
        del lines[domain][waiter]
        if not lines[domain]:
            del lines[domain]
        if not lines:
            del self._tenants[domain.tenant]

    def count(self, domain: TrustDomain) -> int:
        return len(self._line(domain))

    def pop(self, domain: TrustDomain) -> int | None:
        """Take the waiter that has waited longest for a guest of `domain`, or None."""
        waiter = next(iter(self._line(domain)), None)
        if waiter is not None:
            self.discard(waiter)
        return waiter

    def clear(self, domain: TrustDomain | None = None) -> list[int]:
        """Remove and return all waiters of a domain, or all waiters."""
        gone = list(self._domains) if domain is None else list(self._line(domain))
        for waiter in gone:
            self.discard(waiter)
        return gone

    def in_turn(self) -> Iterator[TrustDomain]:
        """Yield the domains that wait: one of each tenant, then the second of each, and so on."""
        lines = [sorted(table, key=lambda d: next(iter(table[d]))) for table in self._tables()]
        for rank in range(max(map(len, lines), default=0)):
            for line in lines:
                if rank < len(line):
                    yield line[rank]

    def had_its_turn(self, tenant: TenantId) -> None:
        """Put a tenant behind all others."""
        if tenant in self._tenants:
            self._tenants.move_to_end(tenant)

    def youngest_of_the_greediest(self, newcomer: TrustDomain) -> int | None:
        """Return the waiter that a newcomer displaces; None if no share is that large.

        "That large" is two or more: with one, two tenants would displace each other without end.
        """
        tenant = max(self._tenants, key=self._tenant_count, default=None)
        if tenant is None:
            return None
        lines = self._tenants[tenant]
        longest = max(lines.values(), key=len)
        if tenant == newcomer.tenant:
            is_much = len(longest) > self.count(newcomer) + 1
        else:
            is_much = self._tenant_count(tenant) > self._tenant_count(newcomer.tenant) + 1
        return next(reversed(longest)) if is_much else None

    def _tables(self) -> list[Mapping[TrustDomain, _Line]]:
        return list(self._tenants.values())

    def _line(self, domain: TrustDomain) -> _Line:
        return self._tenants.get(domain.tenant, {}).get(domain, OrderedDict())

    def _tenant_count(self, tenant: TenantId) -> int:
        return sum(map(len, self._tenants.get(tenant, {}).values()))
