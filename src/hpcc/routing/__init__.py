"""The scheduler's brain: which worker, among those that may. Pure: no clock, no chance, no I/O."""

from hpcc.routing._fleet import Fleet, Member, Wish

__all__ = ["Fleet", "Member", "Wish"]
