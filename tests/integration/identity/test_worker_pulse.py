"""Heartbeat streams over real connections: broken ones, another worker's, and revoked ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.core import HpccError, NotFoundError, PolicyError
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import Beat, RouteChange
from hpcc.rpc.scheduler.client import RegistryClient, SchedulerClient
from hpcc.rpc.scheduler.pulse import Pulse
from hpcc.scheduler.registry import RETURN_SECONDS, WorkerRegistry
from hpcc.scheduler.serve import open_enrolment
from hpcc.worker.base.identity import load_identity_or_none
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test

pytestmark = pytest.mark.timeout(120)
WAIT_SECONDS = 60.0


@dataclass(slots=True)
class World:
    """A scheduler, its one worker, and other clients that show that worker's certificate."""

    farm: FarmUnderTest
    directory: Path

    def registry_channel(self) -> object:
        identity = load_identity_or_none(self.directory / "worker" / "keys")
        assert identity is not None
        return self._channel(self.farm.scheduler.worker_port, identity.tls)

    def _channel(self, port: int, client: object = None) -> object:
        peer = PinnedPeer.from_pem(self.farm.scheduler.certificate_pem.encode())
        return open_channel(
            f"127.0.0.1:{port}",
            certificate_pem=peer.certificate_pem,
            name=peer.name,
            client=client,
        )

    async def changes(self) -> AsyncGenerator[RouteChange]:
        """Watch routes as a daemon does; return the changes."""
        async with self._channel(self.farm.scheduler.port) as channel:
            client = SchedulerClient(channel)
            grant = await client.authenticate(
                secret=self.farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t"
            )
            async with aclosing(client.watch(grant.session, TENANT)) as changes:
                async for change in changes:
                    yield change


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        yield World(farm, tmp_path)


def beat(name: str = "w1", generation: int = 1) -> Beat:
    return Beat(worker_id=name, generation=generation, running=0, queued=0)


async def test_a_stream_cannot_beat_for_another_worker(world: World) -> None:
    async with world.registry_channel() as channel:
        for first in ((), ("w1",)):
            assert await refusal(RegistryClient(channel), first) == "foreign-worker"
    # It is still where it was.
    assert (await world.farm.route()).worker_id == "w1"


async def refusal(registry: RegistryClient, first: tuple[str, ...]) -> str:
    """Beat for `first`, then for w2; return the refusal. The worker itself competes for w1."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            pulse = registry.pulse()
            try:
                for name in first:
                    await pulse.beat(beat(name))
                await pulse.beat(beat("w2"))
            except PolicyError as error:
                return error.reason
            except UnavailableError:
                continue
            raise AssertionError("a heartbeat for another worker is accepted")


async def test_a_worker_that_is_revoked_loses_its_open_stream(world: World) -> None:
    async with world.registry_channel() as channel:
        pulse = RegistryClient(channel).pulse()
        await pulse.beat(beat())
        async with open_enrolment(world.farm.scheduler_config, SystemClock()) as enrolment:
            await enrolment.revoke("w1")
        assert await last_word(pulse, RegistryClient(channel)) == "worker-revoked"


async def last_word(pulse: Pulse, registry: RegistryClient) -> str:
    """Send heartbeats until refused; the worker itself competes for the stream."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await pulse.beat(beat())
            except HpccError as error:
                # A refusal can be lost with the stream that it ends; the next stream gets it again.
                if error.reason not in {
                    "pulse-replaced",
                    "unknown-worker",
                    "deadline",
                    "infrastructure",
                }:
                    return error.reason
                pulse = registry.pulse()
            await asyncio.sleep(0.2)


async def test_a_worker_that_died_is_told_dead_without_waiting_for_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        """Do nothing: send no goodbye."""

    monkeypatch.setattr(RegistryClient, "deregister", nothing)
    monkeypatch.setattr(WorkerRegistry, "expire", lambda _: [])
    async with farm_under_test(tmp_path) as farm:
        async with farm.serving():
            route = await farm.route()
            changes = World(farm, tmp_path).changes()
            await anext(changes)
        async with aclosing(changes), asyncio.timeout(WAIT_SECONDS):
            told = {c.generation async for c in _first_dead(changes)}
        assert told == {route.generation}
        with pytest.raises(NotFoundError):
            await farm.route()


async def _first_dead(changes: AsyncGenerator[RouteChange]) -> AsyncGenerator[RouteChange]:
    async for change in changes:
        if change.is_dead:
            yield change
            return


async def test_a_worker_whose_connection_breaks_comes_back_in_the_life_it_was_in(
    world: World,
) -> None:
    before = await world.farm.route()
    async with world.registry_channel() as channel:
        # Its own stream is ended in favour of this one, and this one ends.
        pulse = RegistryClient(channel).pulse()
        await pulse.beat(beat())
        pulse.close()
    async with asyncio.timeout(WAIT_SECONDS):
        for _ in range(10):
            await asyncio.sleep(RETURN_SECONDS / 5)
            assert (await world.farm.route()).generation == before.generation
