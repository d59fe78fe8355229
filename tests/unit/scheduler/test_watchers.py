"""Watches of routes: each principal has room for its own, and a session's watches end with it."""

from __future__ import annotations

import asyncio

import pytest

from hpcc.core import PolicyError, TenantId
from hpcc.rpc.scheduler.api import ASK_AGAIN, RouteChange
from hpcc.scheduler.watchers import BACKLOG, Watcher, Watchers

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
NEWS = RouteChange("w1", 7, is_dead=True)


def of(tenant: TenantId, principal: str, over: set[str] | None = None) -> Watcher:
    return Watcher(tenant, principal, lambda: principal in (over or set()))


async def is_ended(watcher: Watcher) -> bool:
    try:
        async with asyncio.timeout(0.01):
            return await watcher.next_or_none() is None
    except TimeoutError:
        return False


async def test_one_who_takes_all_watches_makes_place_for_everybody_else() -> None:
    watchers = Watchers(most=20)
    flood = [of(ACME, "mallory") for _ in range(20)]
    for watcher in flood:
        watchers.add(watcher)
    with pytest.raises(PolicyError):
        watchers.add(of(ACME, "mallory"))
    colleague, others = of(ACME, "ann"), [of(GLOBEX, f"g{n}") for n in range(10)]
    for watcher in (colleague, *others):
        watchers.add(watcher)
    watchers.tell([NEWS])
    assert [await is_ended(w) for w in flood] == [True] * 11 + [False] * 9
    for watcher in (colleague, *others):
        assert await watcher.next_or_none() == NEWS
    # Replacement ends: a holder with hardly more watchers than the newcomer keeps them.
    with pytest.raises(PolicyError):
        watchers.add(of(GLOBEX, "g10"))


async def test_a_watch_hears_nothing_after_its_session() -> None:
    over: set[str] = set()
    watchers, ann, bob = Watchers(), of(ACME, "ann", over), of(ACME, "bob", over)
    watchers.add(ann)
    watchers.add(bob)
    over.add("ann")
    watchers.tell([NEWS])
    assert await ann.next_or_none() is None
    assert await bob.next_or_none() == NEWS
    over.add("bob")
    watchers.sweep()
    assert await is_ended(bob), "also when there is no news"


async def test_a_slow_watch_is_ended_and_holds_up_no_other() -> None:
    watchers, slow, other = Watchers(), of(ACME, "ann"), of(ACME, "bob")
    watchers.add(slow)
    watchers.add(other)
    for _ in range(BACKLOG + 1):
        watchers.tell([NEWS])
        assert await other.next_or_none() == NEWS
    assert await slow.next_or_none() is None


async def test_daemons_with_several_routes_hear_of_a_new_worker_and_not_which() -> None:
    watchers = Watchers()
    old = of(ACME, "ann")
    new = Watcher(GLOBEX, "bob", lambda: False, takes_several=True)
    for watcher in (old, new):
        watchers.add(watcher)
    watchers.ask_again()
    watchers.tell([NEWS])
    assert await old.next_or_none() == NEWS, "it would take it for the beginning of its watch"
    assert await new.next_or_none() == ASK_AGAIN
    assert ASK_AGAIN.worker_id == ""
    assert await new.next_or_none() == NEWS


async def test_a_full_queue_costs_an_announcement_and_not_the_watch() -> None:
    watchers = Watchers()
    watcher = Watcher(ACME, "ann", lambda: False, takes_several=True)
    watchers.add(watcher)
    for _ in range(BACKLOG + 5):
        watchers.ask_again()
    for _ in range(BACKLOG):
        assert await watcher.next_or_none() == ASK_AGAIN
    watchers.tell([NEWS])
    assert await watcher.next_or_none() == NEWS


async def test_a_watch_that_begins_looks_at_the_others_only_if_there_is_no_place() -> None:
    """A thousand daemons that come back at once would otherwise look at a million sessions."""
    looks, watchers = list[int](), Watchers(most=50)

    def look(number: int) -> bool:
        looks.append(number)
        return number == 7

    for number in range(50):
        watchers.add(Watcher(ACME, "ann", lambda number=number: look(number)))  # type: ignore[misc]  # bound now
    assert looks == []
    watchers.add(of(ACME, "bob"))
    assert looks == list(range(50))
    assert watchers.by_tenant() == {"acme": 50}, "an ended one made place, so nobody lost a watch"
