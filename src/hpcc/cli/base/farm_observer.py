"""Asks the schedulers of this user's farm what they show, with this user's own login.

The scheduler decides what the caller may see. What is here only asks, and keeps what is expensive:
the connections and the session.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final, NamedTuple, Self

from hpcc import __version__
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, TenantId
from hpcc.dispatch.farm_files import FarmFiles
from hpcc.dispatch.login import FarmLogin, known_certificates
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import Clock
from hpcc.routing.load import LoadSample
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuilds, ask_build, ask_builds
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.farm_picture import FarmPicture, picture_of
from hpcc.rpc.scheduler.observe import FarmStatus, ask_all, ask_history
from hpcc.rpc.scheduler.recent_events import SeenEvents, ask_events
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers, split_schedulers
from hpcc.rpc.scheduler.worker_detail import WorkerDetail, ask_worker

_SECONDS: Final = 60.0
_FORGET_SECONDS: Final = 60.0


class _Connected(NamedTuple):
    """The connections to one farm, whose schedulers must show certificates of `peer`."""

    farm: Farm
    peer: PinnedPeer
    schedulers: Schedulers
    login: FarmLogin


class FarmObserver:
    """Returns pictures of the farm. One task at a time uses it."""

    def __init__(self, paths: Paths, clock: Clock) -> None:
        self._paths, self._clock = paths, clock
        self._files = FarmFiles(paths, load_settings(paths.config_file))
        self._stack = AsyncExitStack()
        self._connected: _Connected | None = None
        # When a session that some schedulers take and others refuse may be replaced.
        self._forget_at = float("-inf")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def farm(self) -> Farm:
        """Return the farm that this user is logged in to.

        Raises:
            CallerError: there is none, or it is a service that shows nothing.
        """
        farm = self._files.farm()
        if farm is None:
            raise CallerError("no farm: run `hpcc login` or `hpcc up`", reason="login-none")
        if farm.engine:
            raise CallerError("an engine of hpcc.toml shows no status", reason="engine")
        return farm

    async def picture(self) -> FarmPicture:
        """Ask every scheduler, and return one picture of what they answered.

        Raises:
            CallerError: there is no farm, or the login is refused.
            TimeoutError: the whole took longer than a minute.
        """
        async with asyncio.timeout(_SECONDS):
            connected = await self._connect(self.farm())
            farm, login = connected.farm, connected.login
            addresses = split_schedulers(farm.scheduler)
            answers: list[FarmStatus | HpccError]
            try:
                session = await login.session()
            except CallerError:
                raise  # the login is refused: that says nothing of the farm
            except HpccError as error:
                answers = [error] * len(addresses)
            else:
                answers = await ask_all(connected.schedulers, session, TenantId(farm.tenant))
        is_answered = any(isinstance(a, FarmStatus) for a in answers)
        now = self._clock.monotonic()
        if any(isinstance(a, UnauthenticatedError) for a in answers) and (
            not is_answered or now >= self._forget_at
        ):
            # Only then: each login opens a session, and a tenant has a limited number of them. One
            # scheduler that knows less than the others may refuse every session.
            login.forget()
            self._forget_at = now + _FORGET_SECONDS
        refused = next((a for a in answers if isinstance(a, CallerError)), None)
        if refused is not None and not is_answered:
            raise refused
        return picture_of(addresses, answers, tenant=farm.tenant, at=self._clock.now())

    async def history(self) -> tuple[LoadSample, ...]:
        """Return the load of the last hour; empty for a member, and where no scheduler shows it.

        Raises:
            HpccError: there is no farm, or no session.
            TimeoutError: the whole took longer than a minute.
        """
        async with asyncio.timeout(_SECONDS):
            schedulers, session, tenant = await self._session()
            return await ask_history(schedulers, session, tenant)

    async def events(self) -> SeenEvents:
        """Return the last security events, for an operator; empty where no scheduler shows them.

        Raises:
            HpccError: there is no farm, or no session.
            TimeoutError: the whole took longer than a minute.
        """
        async with asyncio.timeout(_SECONDS):
            schedulers, session, tenant = await self._session()
            return await ask_events(schedulers, session, tenant)

    async def worker(self, worker_id: str) -> WorkerDetail:
        """Return more of one worker.

        Raises:
            HpccError: no scheduler shows it to this login.
            TimeoutError: the whole took longer than a minute.
        """
        async with asyncio.timeout(_SECONDS):
            schedulers, session, tenant = await self._session()
            return await ask_worker(schedulers, session, tenant, worker_id)

    async def builds(self) -> KeptBuilds:
        """Return heads of the builds that this login may see.

        Raises:
            HpccError: there is no farm, or no scheduler shows them.
            TimeoutError: the whole took longer than a minute.
        """
        async with asyncio.timeout(_SECONDS):
            schedulers, session, tenant = await self._session()
            return await ask_builds(schedulers, session, tenant)

    async def build(self, build_id: str) -> FarmBuild:
        """Return one build.

        Raises:
            NotFoundError: no scheduler shows it to this login.
            HpccError: there is no farm, or no scheduler answers.
            TimeoutError: the whole took longer than a minute.
        """
        async with asyncio.timeout(_SECONDS):
            schedulers, session, tenant = await self._session()
            return await ask_build(schedulers, session, tenant, build_id)

    async def _session(self) -> tuple[Schedulers, str, TenantId]:
        connected = await self._connect(self.farm())
        session = await connected.login.session()
        return connected.schedulers, session, TenantId(connected.farm.tenant)

    async def _connect(self, farm: Farm) -> _Connected:
        # A daemon may have learnt of other certificates since.
        peer = known_certificates(farm, self._paths.farm_session_file).peer
        known = self._connected
        if known is not None and (known.farm, known.peer) == (farm, peer):
            return known
        await self._close()
        schedulers = await self._stack.enter_async_context(
            open_schedulers(
                farm.scheduler,
                certificate_pem=peer.certificate_pem,
                name=peer.name,
                clock=self._clock,
            )
        )
        client = SchedulerClient(schedulers)
        login = FarmLogin(farm, client, self._clock, __version__, None)
        self._connected = _Connected(farm, peer, schedulers, login)
        return self._connected

    async def _close(self) -> None:
        self._connected = None
        await self._stack.aclose()
