"""Asking a farm again and again: few logins, few connections, and always with what holds now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.cli.base import farm_observer
from hpcc.cli.base.farm_observer import FarmObserver
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.core import CallerError, HpccError, PolicyError
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.rpc.scheduler.observe import FarmStatus
from hpcc_testkit.farm.in_process import IMAGE
from hpcc_testkit.services.idp_tokens import FixedClock
from hpcc_testkit.services.pictures import status, worker

FARM = Farm(
    scheduler="s0:7443", scheduler_certificate_pem="", tenant="acme", principal="ann",
    secret="s" * 43, image=str(IMAGE), isolation="local/none",
)  # fmt: skip


class Schedulers:
    """Schedulers of a test, which count logins and connections."""

    def __init__(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        self._paths = paths
        self.logins = self.opened = self.open = 0
        self.says: FarmStatus | HpccError = status(worker("w1"))
        self.others: list[FarmStatus | HpccError] = []
        self.peer = PinnedPeer(b"one", "s")
        monkeypatch.setattr(farm_observer, "ask_all", self._ask_all)
        monkeypatch.setattr(farm_observer, "open_schedulers", self._open)
        monkeypatch.setattr(farm_observer, "SchedulerClient", lambda _: self)
        monkeypatch.setattr(
            farm_observer, "known_certificates", lambda *_: SimpleNamespace(peer=self.peer)
        )
        self.write(FARM)

    def write(self, farm: Farm) -> None:
        self._paths.state.mkdir(parents=True, exist_ok=True)
        self._paths.farm_file.write_text(farm.to_json())
        self._paths.farm_file.chmod(0o600)

    async def authenticate(self, **_: object) -> SessionGrant:
        self.logins += 1
        return SessionGrant(session=f"s{self.logins}", expires_at=9_999_999_999)

    async def _ask_all(self, *_: object) -> list[FarmStatus | HpccError]:
        return [self.says, *self.others]

    @asynccontextmanager
    async def _open(self, *_: object, **__: object) -> AsyncIterator[object]:
        self.opened += 1
        self.open += 1
        yield object()
        self.open -= 1


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_env({"HPCC_DIR": str(tmp_path)})


async def test_a_login_and_its_connections_are_kept_whatever_the_farm_answers(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each login opens a session, and the oldest of a tenant ends when there are too many."""
    there = Schedulers(paths, monkeypatch)
    async with FarmObserver(paths, SystemClock()) as observer:
        for _ in range(3):
            assert (await observer.picture()).health == "healthy"
        there.says = UnavailableError("away")
        assert (await observer.picture()).health == "down"
        there.says = PolicyError("another tenant's")
        with pytest.raises(PolicyError):
            await observer.picture()
        assert (there.logins, there.opened) == (1, 1)
        there.says = UnauthenticatedError("the session has ended")
        with pytest.raises(UnauthenticatedError):
            await observer.picture()
        there.says = status(worker("w1"))
        await observer.picture()
        assert (there.logins, there.opened) == (2, 1)
    assert there.open == 0


async def test_a_scheduler_that_refuses_every_session_causes_few_logins(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that is cut off since before a new key: the others take each session."""
    there = Schedulers(paths, monkeypatch)
    there.write(replace(FARM, scheduler="s0:7443,s1:7443"))
    there.others = [UnauthenticatedError("an unknown key")]
    clock = FixedClock()
    async with FarmObserver(paths, clock) as observer:
        for _ in range(20):
            assert (await observer.picture()).health == "degraded"
            clock.time += 2.0
    assert there.logins == 2


async def test_another_login_and_other_certificates_count_at_once(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Schedulers(paths, monkeypatch)
    async with FarmObserver(paths, SystemClock()) as observer:
        await observer.picture()
        there.write(replace(FARM, principal="zed", tenant="globex"))
        assert (await observer.picture()).tenant == "globex"
        there.peer = PinnedPeer(b"two", "s")
        await observer.picture()
        assert (there.logins, there.opened, there.open) == (3, 3, 1)
        paths.farm_file.unlink()
        with pytest.raises(CallerError, match="hpcc login"):
            await observer.picture()
