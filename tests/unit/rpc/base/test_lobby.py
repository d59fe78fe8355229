"""The lobby of a server: seats in turns by address, and deadlines that depend on who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from hpcc.rpc.base.errors import BusyError, DeadlineError
from hpcc.rpc.base.lobby import Lobby, LobbySize, Seat, address_of

LONG = 600.0


def lobby(seats: int = 2, waiting: int = 100, **seconds: float) -> Lobby:
    given = {
        "seconds": LONG,
        "hurried_seconds": LONG,
        "patience_seconds": LONG,
        **seconds,
    }
    return Lobby(LobbySize(seats=seats, waiting=waiting, **given))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def silent(lobby: Lobby, *addresses: str) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """Run calls that never send their message, one by one in this order."""

    async def wait(address: str) -> None:
        async with lobby.seat(address):
            await asyncio.get_running_loop().create_future()

    tasks = []
    for address in addresses:
        tasks.append(asyncio.create_task(wait(address)))
        await settle()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_call_without_a_message_ends_at_its_deadline() -> None:
    with pytest.raises(DeadlineError) as caught:
        async with lobby(seconds=0.01).seat("a"):
            await asyncio.get_running_loop().create_future()
    assert caught.value.reason == "slow-message"


async def test_while_others_wait_a_silent_call_ends_sooner() -> None:
    room = lobby(hurried_seconds=0.01, patience_seconds=5.0)
    async with silent(room, "a", "a") as first:
        assert not any(task.done() for task in first)
        async with room.seat("b"):
            pass
        assert isinstance(first[0].exception(), DeadlineError)


async def test_a_call_whose_message_came_is_not_hurried() -> None:
    room = lobby(seats=1, hurried_seconds=0.01)
    async with room.seat("a") as seat:
        seat.arrived()
        other = asyncio.create_task(_sit(room, "b"))
        await asyncio.sleep(0.05)
        assert not other.done()
    await other


async def _sit(room: Lobby, address: str) -> None:
    async with room.seat(address):
        pass


async def test_addresses_take_turns() -> None:
    room = lobby(seats=1)
    order: list[str] = []

    async def call(address: str) -> None:
        async with room.seat(address):
            order.append(address)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(room.seat("x"))
        tasks = []
        for address in ("a", "a", "a", "a", "b", "c"):
            tasks.append(asyncio.create_task(call(address)))
            await settle()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "a", "a", "a"]


async def test_when_too_many_wait_one_of_the_address_with_most_is_refused() -> None:
    room = lobby(seats=1, waiting=4)
    async with silent(room, "x", "a", "a", "a", "b") as calls:
        newcomer = asyncio.create_task(_sit(room, "c"))
        await settle()
        assert [task.done() for task in calls] == [False, True, False, False, False]
        error = calls[1].exception()
        assert isinstance(error, BusyError)
        assert error.reason == "lobby-full"
        assert not newcomer.done()
        newcomer.cancel()
        await asyncio.gather(newcomer, return_exceptions=True)


async def test_who_gets_no_seat_in_time_is_told() -> None:
    room = lobby(seats=1, patience_seconds=0.01)
    async with room.seat("a"):
        with pytest.raises(BusyError):
            async with room.seat("b"):
                raise AssertionError
    async with room.seat("b"):
        pass


async def test_seats_come_back_however_a_call_ends() -> None:
    room = lobby(seats=3, waiting=10)
    for _ in range(50):
        async with silent(room, *"aaaaabbb"):
            pass
    async with AsyncExitStack() as stack:
        seats: list[Seat] = [await stack.enter_async_context(room.seat(a)) for a in "abc"]
        assert len(seats) == 3


async def test_a_call_that_is_cancelled_as_it_gets_its_seat_gives_it_back() -> None:
    room = lobby(seats=1)
    async with silent(room, "a", "b") as (first, second):
        first.cancel()
        # The seat is given in the step after this one, and taken back in the next.
        await asyncio.gather(first, return_exceptions=True)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    async with asyncio.timeout(5), room.seat("c"):
        pass


def test_addresses_of_one_machine_are_one() -> None:
    assert address_of("ipv4:192.0.2.1:4711") == "192.0.2.1"
    assert address_of("ipv6:[2001:db8:1:2:3::4]:1") == address_of("ipv6:[2001:db8:1:2::9]:2")
    assert address_of("ipv6:[2001:db8:1:2::9]:2") != address_of("ipv6:[2001:db8:1:3::9]:2")
    assert address_of("ipv6:[fe80::1%eth0]:2") == "fe80::/64"
    assert address_of("unix:") == ""
    assert address_of("ipv6:nonsense:1") == "nonsense"
