"""Dialling a guest is repeated while it boots, in a thread that the caller waits for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hpcc.core import InfrastructureError
from hpcc.runtime.windows.hvsocket import RETRIED, address_of, dial, hyperv_socket
from hpcc.runtime.windows.spec import container_vmid, service_guid

ADDRESS = address_of(container_vmid("hpcc-1"), service_guid(17727))


class Fake:
    """A socket with a scripted connect."""

    def __init__(self, connect: Callable[[Any], None]) -> None:
        self._connect = connect
        self.is_closed = False
        self.timeout: float | None = -1.0

    def connect(self, address: Any) -> None:
        self._connect(address)

    def settimeout(self, seconds: float | None) -> None:
        self.timeout = seconds

    def close(self) -> None:
        self.is_closed = True


class Fakes:
    """One socket per attempt: raises the errors in order, then connects."""

    def __init__(self, *errors: OSError) -> None:
        self.errors = list(errors)
        self.made: list[Fake] = []
        self.addresses: list[Any] = []

    def __call__(self) -> Any:
        self.made.append(Fake(self._connect))
        return self.made[-1]

    def _connect(self, address: Any) -> None:
        self.addresses.append(address)
        if self.errors:
            raise self.errors.pop(0)


def test_an_address_is_two_strings() -> None:
    assert address_of(UUID(int=1), UUID(int=2)) == (
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0000-0000-000000000002",
    )


async def test_a_guest_that_boots_is_dialled_until_it_listens() -> None:
    fakes = Fakes(*[OSError(code, "not yet") for code in sorted(RETRIED)])
    made: Any = await dial(ADDRESS, timeout_seconds=60, new_socket=fakes)
    assert made is fakes.made[-1]
    assert [f.is_closed for f in fakes.made] == [True, True, True, False]
    assert made.timeout == 0
    assert set(fakes.addresses) == {ADDRESS}


async def test_windows_own_number_of_an_error_counts() -> None:
    error = OSError(111, "refused")
    error.winerror = 10061  # type: ignore[attr-defined]  # what Windows sets
    fakes = Fakes(error)
    await dial(ADDRESS, timeout_seconds=60, new_socket=fakes)
    assert len(fakes.made) == 2


async def test_missing_rights_are_not_tried_again() -> None:
    fakes = Fakes(OSError(10013, "forbidden"))
    with pytest.raises(InfrastructureError, match="forbidden") as caught:
        await dial(ADDRESS, timeout_seconds=60, new_socket=fakes)
    assert caught.value.reason == "dial"
    assert [f.is_closed for f in fakes.made] == [True]


async def test_a_guest_that_never_listens_is_given_up() -> None:
    fakes = Fakes(*[OSError(10061, "refused")] * 10_000)
    with pytest.raises(InfrastructureError, match="refused") as caught:
        await dial(ADDRESS, timeout_seconds=0.3, new_socket=fakes)
    assert caught.value.reason == "dial-timeout"
    assert all(f.is_closed for f in fakes.made)


async def test_a_cancel_closes_the_socket_and_waits_for_its_thread() -> None:
    entered, leave = threading.Event(), threading.Event()
    left: list[bool] = []

    def connect(_: Any) -> None:
        entered.set()
        leave.wait(30)
        left.append(True)

    fake = Fake(connect)
    task = asyncio.ensure_future(
        dial(ADDRESS, timeout_seconds=60, new_socket=lambda: fake)  # type: ignore[arg-type, return-value]  # no socket
    )
    await asyncio.to_thread(entered.wait, 60)
    task.cancel()
    await asyncio.sleep(0)
    assert fake.is_closed
    assert not task.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [True]


async def test_bytes_go_both_ways_over_a_dialled_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        class Unix(socket.socket):
            def connect(self, _: Any) -> None:
                super().connect(path)

        made = await dial(ADDRESS, timeout_seconds=60, new_socket=lambda: Unix(socket.AF_UNIX))
        peer, _ = listener.accept()
        with peer:
            reader, writer = await asyncio.open_connection(sock=made)
            peer.sendall(b"guest")
            assert await reader.readexactly(5) == b"guest"
            writer.write(b"host")
            await writer.drain()
            assert peer.recv(4) == b"host"
            writer.close()
            await writer.wait_closed()


def test_elsewhere_the_family_is_said_to_be_missing() -> None:
    with pytest.raises(InfrastructureError) as caught:
        hyperv_socket()
    assert caught.value.reason == "not-windows"
