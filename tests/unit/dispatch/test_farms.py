"""The connection of a dispatcher to the farm that farm.json names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.core import CallerError
from hpcc.dispatch import main
from hpcc.dispatch.main import Farms
from hpcc.ports import SystemClock


class Connecting:
    """Stands for `connect_farm`: counts connections, and waits as reading a file does."""

    def __init__(self) -> None:
        self.connected = 0
        self.error: CallerError | None = None

    @asynccontextmanager
    async def __call__(self, *_: object, **__: object) -> AsyncGenerator[object]:
        self.connected += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        yield SimpleNamespace(number=self.connected)


@pytest.fixture
def connecting(monkeypatch: pytest.MonkeyPatch) -> Connecting:
    connecting = Connecting()
    monkeypatch.setattr(main, "connect_farm", connecting)
    monkeypatch.setattr(main, "load_farm_or_none", lambda _path: SimpleNamespace(engine=""))
    return connecting


async def test_compiles_that_begin_at_once_share_one_connection(
    connecting: Connecting, tmp_path: Path
) -> None:
    (tmp_path / "farm.json").write_text("{}")
    async with AsyncExitStack() as stack:
        farms = Farms(tmp_path / "farm.json", stack, SystemClock(), 1.0)
        found = await asyncio.gather(*(farms.current() for _ in range(6)))
        assert found[0] is not None
        assert all(one is found[0] for one in found)
        assert connecting.connected == 1


async def test_a_connection_that_failed_is_tried_again(
    connecting: Connecting, tmp_path: Path
) -> None:
    (tmp_path / "farm.json").write_text("{}")
    async with AsyncExitStack() as stack:
        farms = Farms(tmp_path / "farm.json", stack, SystemClock(), 1.0)
        connecting.error = CallerError("farm.json is damaged", reason="farm-file")
        for _ in range(2):
            with pytest.raises(CallerError):
                await farms.current()
        connecting.error = None
        assert await farms.current() is not None
