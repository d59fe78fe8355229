"""The host retires a guest that misbehaves, with the right reason and at a bounded cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcc.core import OutputEvent, ResultEvent
from hpcc.runtime.channel import channel as channel_module
from hpcc_testkit.hostile.exec import AFTER, EXEC
from hpcc_testkit.hostile.harness import Host
from hpcc_testkit.hostile.link import IDLE, LINK
from hpcc_testkit.hostile.server import HostileServer


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    server = HostileServer()
    yield server
    server.stop()


@pytest.fixture
def host(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host whose timeouts are seconds, not minutes."""

    def set_patience(stage_seconds: float, grace_seconds: float) -> None:
        monkeypatch.setattr(channel_module, "STAGE_SECONDS", stage_seconds)
        monkeypatch.setattr(channel_module, "GRACE_SECONDS", grace_seconds)

    return Host(server, set_patience)


async def test_an_honest_guest_is_served_so_that_the_others_prove_something(host: Host) -> None:
    events = await host.serve()
    assert [type(e) for e in events] == [ResultEvent, OutputEvent]


@pytest.mark.parametrize("name", LINK)
async def test_a_guest_that_does_not_greet_is_given_up(name: str, host: Host) -> None:
    await host.stand("link", name)


@pytest.mark.parametrize("name", IDLE)
async def test_a_guest_that_was_asked_nothing_and_misbehaves_is_given_up(
    name: str, host: Host
) -> None:
    await host.stand("idle", name)


@pytest.mark.parametrize("name", EXEC)
async def test_a_guest_that_answers_with_an_attack_is_given_up(name: str, host: Host) -> None:
    await host.stand("exec", name)


async def test_a_guest_that_reads_nothing_is_lost_when_it_answers_no_ping(host: Host) -> None:
    await host.stand("deaf", "never-reads")


@pytest.mark.parametrize("name", AFTER)
async def test_a_guest_that_goes_on_after_a_good_answer_is_given_up(name: str, host: Host) -> None:
    await host.stand("after", name)
