"""Which leases a bot holds, and what follows from an engine's answers. Pure.

The problem: a bot and its engine agree on leases by repeating what they hold, over a connection
that loses answers. A lease that only one of them believes in is a guest that works for nobody, or a
client that waits for nobody.

The rules:

- Each report has every lease that the bot holds. What the engine leaves out of its answer is over:
  a result that was reported has arrived, and anything else has been given to another bot.
- A lease in an answer that the bot does not hold is new. Over the bot's capacity, and while it
  takes none, it ends at once with an error that lets the engine give it to another bot.
- A lease that was reported as ended and comes back with its payload has been given out again.
- An answer is compared with the report that it answers. A lease that ended meanwhile is in the next
  report.
- With a session all of its leases end.

Example: the engine's answer to a result is lost. The next report has the result again; the engine
does not know the lease any more and leaves it out, and the bot forgets it.

What must never happen: a result that the engine has not heard of is forgotten while the session
lasts; a lease that the engine took back keeps a guest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.rpc.base.errors import MissingBlobsError
from hpcc.rpc.engine.messages import LeaseEnd, LeaseReport, LeaseState, ServerLease

# Of the ends in one report: servers of gRPC take 4 MiB, and a refused report ends the session.
_REPORT_BYTES: Final = 2 << 20
_MISSING_BYTES: Final = 100
_HELD: Final = frozenset({LeaseState.PENDING, LeaseState.ACTIVE})


@dataclass(slots=True, eq=False)
class HeldLease:
    """A lease from its arrival until the engine knows its end. `end` is None while it runs."""

    lease: ServerLease
    end: LeaseEnd | None = None


@dataclass(frozen=True, slots=True)
class LeaseNews:
    """What follows from an answer: leases that begin, and those that the engine took back."""

    begun: tuple[HeldLease, ...]
    dropped: tuple[HeldLease, ...]


@dataclass(slots=True)
class LeaseBook:
    """The leases of one bot."""

    capacity: int
    # Whether leases are taken; else they end at once.
    is_open: bool = True
    _held: dict[str, HeldLease] = field(default_factory=dict)
    # The leases of the last report, and whether they were reported as ended.
    _reported: dict[str, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many leases run, or have an end that the engine may not know."""
        return len(self._held)

    @property
    def running(self) -> int:
        """How many leases have not ended."""
        return sum(held.end is None for held in self._held.values())

    @property
    def has_news(self) -> bool:
        """Whether a lease has an end that was not reported yet."""
        return any(
            held.end is not None and not self._reported.get(name)
            for name, held in self._held.items()
        )

    def report(self) -> tuple[LeaseReport, ...]:
        """Return what the next call says. The answer to it goes to `heard`."""
        reports, size = [], 0
        for name, held in self._held.items():
            end = held.end
            cost = 0 if end is None else _size_of(end)
            # What has no room is in the next report, which follows at once.
            if size and size + cost > _REPORT_BYTES:
                end = None
            else:
                size += cost
            reports.append(LeaseReport(name, end))
        self._reported = {report.id: report.end is not None for report in reports}
        return tuple(reports)

    def ended(self, held: HeldLease, end: LeaseEnd) -> None:
        """Note how a lease ended. It is dropped if the engine has taken the lease back."""
        if self._held.get(held.lease.id) is held:
            held.end = end

    def heard(self, leases: tuple[ServerLease, ...]) -> LeaseNews:
        """Compare the engine's answer with the last report."""
        begun: list[HeldLease] = []
        dropped: list[HeldLease] = []
        named = {lease.id: lease for lease in leases}
        for name in list(self._held):
            lease = named.get(name)
            if lease is not None and not self._is_over(lease):
                continue
            held = self._held.pop(name)
            if held.end is None:
                dropped.append(held)
        for lease in leases:
            if lease.id in self._held or lease.state not in _HELD:
                continue
            held = self._held[lease.id] = HeldLease(lease)
            if self.is_open and self.running <= self.capacity:
                begun.append(held)
            else:
                held.end = LeaseEnd(error=_no_room(is_open=self.is_open))
        return LeaseNews(tuple(begun), tuple(dropped))

    def _is_over(self, lease: ServerLease) -> bool:
        """Return whether a lease that the bot holds has been taken back, or given out again."""
        if lease.state is LeaseState.CANCELLED:
            return True
        # Reports have no payload, so this is not an echo of one.
        has_payload = bool(lease.action or lease.digest or lease.fault)
        return self._reported.get(lease.id, False) and lease.state in _HELD and has_payload

    def clear(self) -> tuple[HeldLease, ...]:
        """End the session: forget all leases, and return those that ran."""
        running = tuple(held for held in self._held.values() if held.end is None)
        self._held.clear()
        self._reported.clear()
        return running


def _size_of(end: LeaseEnd) -> int:
    """Return about how many bytes an end takes in a report."""
    missing = end.error.digests if isinstance(end.error, MissingBlobsError) else ()
    return len(end.result) + len(missing) * _MISSING_BYTES


def _no_room(*, is_open: bool) -> InfrastructureError:
    if not is_open:
        return InfrastructureError("this worker takes no leases: it is drained", reason="draining")
    return InfrastructureError("this worker has no room for another lease", reason="busy")
