"""Decides which connections an address may have: how many at once, and how many in a time. Pure.

An address may hold `most` connections. It may open twice as many at once, so that all can be opened
again after a server's restart, and `most` in each further eight seconds. One that goes on is
excluded for a while: its connections should end before they cost a TLS handshake. An address at its
limit that tries again now and then is refused and not excluded. `ban` excludes an address for what
its connections sent.

Example: with `most` = 512 one address gets at most 64 TLS handshakes a second, after its first
1,024.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from hpcc.core import CallerError

# Room for 250 people behind one address: each holds one connection to a scheduler or a worker, and
# two for a moment.
CONNECTIONS_PER_ADDRESS: Final = 512
_MIN_CONNECTIONS: Final = 8
# At once, in units of `most`.
_BURST: Final = 2
# In this time an address may open `most` connections more.
_REFILL_SECONDS: Final = 8.0
# An excluded address comes back when it may open this part of its connections.
_BACK: Final = 0.25
# An address that was banned comes back after a minute. In units of `most`, below nothing.
_BAN: Final = 60 / _REFILL_SECONDS - _BACK
_PREFIX_BITS: Final = 64


def check_connections(most: int) -> None:
    """Check a limit for the connections of an address; 0 is none.

    Raises:
        CallerError: the number is too small for a few daemons behind one address.
    """
    if most and most < _MIN_CONNECTIONS:
        raise CallerError(
            f"connections_per_address must be 0 or at least {_MIN_CONNECTIONS}", reason="config"
        )


def source_of(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or a network of IPv6.

    One machine may have many IPv6 addresses, so these are cut to their network. Any other text is
    returned as it is.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _PREFIX_BITS), strict=False))


@dataclass(frozen=True, slots=True)
class Refused:
    """An address, how many of its connections were refused since the last report, and are open."""

    address: str
    refused: int
    open: int


@dataclass(slots=True)
class _Source:
    allowance: float
    at: float
    open: int = 0
    refused: int = 0
    is_excluded: bool = False


class ConnectionLimit:
    """Counts the connections of each address. Times are seconds of any one clock."""

    def __init__(self, most: int) -> None:
        self.most, self._burst = most, float(_BURST * most)
        self._sources: dict[str, _Source] = {}

    def opened(self, address: str, now: float) -> bool:
        """Count a connection; return whether it may stay. One that may not counts until closed."""
        source = self._source(address, now)
        may_stay = source.open < self.most and source.allowance >= 1
        source.open += 1
        # A ban does not become shorter, nor longer, by trying.
        source.allowance = max(source.allowance - 1, min(source.allowance, 0.0))
        source.is_excluded |= source.allowance < 1
        source.refused += not may_stay
        return may_stay

    def ban(self, address: str, now: float) -> bool:
        """Exclude an address for a minute; return False if it is banned already."""
        source = self._source(address, now)
        is_new = source.allowance >= 0
        if is_new:
            source.allowance, source.is_excluded = -_BAN * self.most, True
        return is_new

    def closed(self, address: str) -> None:
        """Count the end of a connection."""
        self._sources[address].open -= 1

    def excluded(self, now: float) -> frozenset[str]:
        """Return the addresses whose connections should not be accepted now; forget idle ones."""
        for address, source in tuple(self._sources.items()):
            self._refill(source, now)
            source.is_excluded &= source.allowance < _BACK * self.most
            is_idle = not source.open and not source.refused and source.allowance >= self._burst
            if is_idle:
                del self._sources[address]
        return frozenset(a for a, source in self._sources.items() if source.is_excluded)

    def take_refused(self) -> list[Refused]:
        """Return the addresses with refused connections, most first, and count from 0 again."""
        found = [Refused(a, s.refused, s.open) for a, s in self._sources.items() if s.refused]
        for one in found:
            self._sources[one.address].refused = 0
        return sorted(found, key=lambda one: (-one.refused, one.address))

    def _source(self, address: str, now: float) -> _Source:
        source = self._sources.get(address)
        if source is None:
            source = self._sources[address] = _Source(self._burst, now)
        self._refill(source, now)
        return source

    def _refill(self, source: _Source, now: float) -> None:
        more = (now - source.at) * self.most / _REFILL_SECONDS
        source.allowance, source.at = min(source.allowance + more, self._burst), now
