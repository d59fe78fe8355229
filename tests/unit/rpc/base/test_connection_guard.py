"""The guard of a port finds this process's sockets, and ends or excludes what an address may not have.

Sockets of 127.0.0.x stand for machines.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hpcc.rpc.base.connection_guard import ConnectionGuard, drop_program
from hpcc.rpc.base.connection_limit import ConnectionLimit
from hpcc_testkit.services.idp_tokens import FixedClock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
EVE, ANN = "127.0.0.2", "127.0.0.3"
NO_ANSWER = 0.3


class Port:
    """A listening socket of this process, its guard, and its accepted connections."""

    def __init__(self, stack: ExitStack, family: socket.AddressFamily, most: int) -> None:
        self.stack, self.clock = stack, FixedClock(0.0)
        self.listener = stack.enter_context(socket.socket(family))
        if family == socket.AF_INET6:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.guard = ConnectionGuard(self.port, ConnectionLimit(most), self.clock)

    def flood(self, source: str) -> int:
        """Connect and go until that is not possible; return how often it was."""
        for number in range(100):
            try:
                ends = self.connect(source)
            except TimeoutError:
                return number
            self.guard.look()
            for end in ends:
                end.close()
        return 100

    def connect(self, source: str) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection."""
        client = self.stack.enter_context(socket.socket())
        client.settimeout(NO_ANSWER)
        client.bind((source, 0))
        client.connect(("127.0.0.1", self.port))
        server, _ = self.listener.accept()
        return client, self.stack.enter_context(server)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    with ExitStack() as stack:
        yield Port(stack, request.param, most=8)


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True


def test_the_connection_that_is_too_much_is_shut_down_and_no_other(port: Port) -> None:
    eve = [port.connect(EVE)[0] for _ in range(8)]
    port.guard.look()
    ann, more = port.connect(ANN)[0], port.connect(EVE)[0]
    port.guard.look()
    assert [is_open(client) for client in [*eve, ann, more]] == [True] * 9 + [False]


def test_an_end_makes_room(port: Port) -> None:
    held = [port.connect(EVE) for _ in range(8)]
    port.guard.look()
    for end in held[0]:
        end.close()
    # The next socket has another number.
    for _ in range(2):
        port.stack.enter_context(socket.socket(socket.AF_UNIX))
    port.clock.time = 8.0
    client, _ = port.connect(EVE)
    port.guard.look()
    assert is_open(client)


def test_a_flood_is_dropped_before_it_is_accepted_and_passes_again_later(port: Port) -> None:
    assert port.flood(EVE) == 16
    assert is_open(port.connect(ANN)[0])
    port.clock.time = 8.0
    port.guard.look()
    assert is_open(port.connect(EVE)[0])


def test_what_was_accepted_before_goes_on_during_an_exclusion(port: Port) -> None:
    client, server = port.connect(EVE)
    assert port.flood(EVE) == 15
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_a_ban_ends_all_connections_of_an_address_and_no_other(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    eve = [port.connect(EVE)[0] for _ in range(3)]
    port.guard.look()
    eve.append(port.connect(EVE)[0])  # not seen yet
    ann = port.connect(ANN)[0]
    with caplog.at_level(logging.WARNING):
        port.guard.ban(EVE)
        port.guard.ban(EVE)
    assert [is_open(client) for client in [*eve, ann]] == [False] * 4 + [True]
    assert is_open(port.connect(ANN)[0])
    lines = [r.getMessage() for r in caplog.records if "header-flood" in r.getMessage()]
    assert lines == [
        f"refused: connections reason=header-flood peer={EVE} count=4 port={port.port}"
    ]
    port.clock.time = 61.0
    port.guard.look()
    assert is_open(port.connect(EVE)[0])


def test_bans_of_many_addresses_do_not_fill_the_log(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            port.guard.ban(f"192.0.2.{number}")
        assert len(caplog.records) == 20
        port.clock.time = 60.0
        port.guard.ban("192.0.2.99")
        assert len(caplog.records) == 21


def test_other_files_are_left_alone(port: Port) -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket() as elsewhere, ExitStack() as stack:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        for _ in range(20):
            port.connect(ANN)
        outgoing = [stack.enter_context(socket.socket()) for _ in range(20)]
        for client in outgoing:
            client.connect(elsewhere.getsockname())
        accepted = [stack.enter_context(elsewhere.accept()[0]) for _ in outgoing]
        port.guard.look()
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        assert [is_open(end) for end in [*outgoing, *accepted]] == [True] * 40


def test_a_number_that_became_another_files_is_not_shut_down(port: Port) -> None:
    client, server = port.connect(EVE)
    assert port.guard._opened(server.fileno(), 1) is None
    assert is_open(client)


def test_refusals_are_one_line_for_an_address_and_minute(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(12):
        port.connect(EVE)
    for second in (0.0, 1.0, 59.0):
        port.clock.time = second
        port.connect(EVE)
        port.guard.look()
    lines = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert lines == [
        f"refused: connections reason=connections-per-address peer={EVE} count=5 open=13 limit=8"
        f" port={port.port}"
    ]
    port.clock.time = 61.0
    port.guard.look()
    assert "count=2 open=15" in caplog.records[-1].getMessage()


def test_without_a_filter_a_flood_is_still_shut_down(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hpcc.rpc.base.connection_guard._SO_ATTACH_FILTER", 9999)
    clients = []
    for _ in range(30):
        client, server = port.connect(EVE)
        port.guard.look()
        clients.append(is_open(client))
        server.close()
        client.close()
    assert clients == [True] * 16 + [False] * 14
    assert [r.getMessage() for r in caplog.records if "socket filter" in r.getMessage()]


def test_it_ends_when_nothing_listens(port: Port) -> None:
    assert port.guard.look()
    port.listener.close()
    assert not port.guard.look()


@pytest.mark.parametrize(("network", "passes"), [("::/64", False), ("2001:db8::/64", True)])
def test_networks_of_ipv6_are_dropped_by_their_first_half(network: str, passes: bool) -> None:
    # Loopback has one address of IPv6, ::1.
    with ExitStack() as stack:
        port = Port(stack, socket.AF_INET6, most=8)
        port.guard._attach(port.listener, frozenset([network]))
        client = stack.enter_context(socket.socket(socket.AF_INET6))
        client.settimeout(NO_ANSWER)
        if passes:
            client.connect(("::1", port.port))
        else:
            with pytest.raises(TimeoutError):
                client.connect(("::1", port.port))


@pytest.mark.parametrize("count", [1, 500])
def test_a_filter_for_many_addresses_is_taken_by_the_kernel(count: int) -> None:
    addresses = [f"10.0.{n // 250}.{n % 250}" for n in range(count)]
    networks = [f"2001:db8:{n:x}::/64" for n in range(count)]
    assert len(drop_program(addresses + networks)) // 8 <= 4096
    with ExitStack() as stack:
        port = Port(stack, socket.AF_INET, most=8)
        port.guard._attach(port.listener, frozenset((addresses + networks)[:500]))
        assert port.guard._can_filter
        assert is_open(port.connect(ANN)[0])
