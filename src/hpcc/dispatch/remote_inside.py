"""The daemon's dispatcher on Windows: a thread in its own process. Not yet run on Windows.

The daemon does not fork there and no socket is inherited, so gRPC needs no separate process. It is
imported at the first compile for a farm, because the import takes seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc import __version__
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import RemoteFailure, RemoteOutcome, RemoteRequest, demanded
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.farm_files import FarmFiles
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.dispatch.compile import Dispatcher
    from hpcc.dispatch.main import Farms

_log: Final = logging.getLogger(__name__)
# As for a dispatcher process, see `remote`.
_POLL_SECONDS: Final = 0.5
_SLACK_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 5.0
_LOST: Final = RemoteFailure(FallbackReason.DISPATCHER_LOST, "the dispatcher ended")
_CLOSED: Final = RemoteFailure(FallbackReason.DISPATCHER_CLOSED, "the daemon is closing")


class InsideClient:
    """A `RemoteClient` whose dispatcher runs in the daemon's process."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._files, self._settings = FarmFiles(paths, settings), settings.remote
        self._lock = threading.Lock()
        self._life: _Life | None = None
        self._is_closed = False

    def farm(self) -> Farm | None:
        """See `RemoteClient.farm`."""
        return self._files.farm()

    def session(self) -> FarmSession | None:
        """See `RemoteClient.session`."""
        return self._files.session()

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        """See `RemoteClient.compile`."""
        with self._lock:
            if self._is_closed:
                return _CLOSED
            try:
                life = self._life = self._living()
            except OSError as error:
                return RemoteFailure(
                    FallbackReason.DISPATCHER_START, f"cannot start the dispatcher: {error}"
                )
        asked = life.ask(request)
        if asked is None:
            return _LOST
        rounds = (self._settings.timeout_seconds + _SLACK_SECONDS) / _POLL_SECONDS
        for _ in range(int(rounds)):
            if wait_for_futures([asked], _POLL_SECONDS).done:
                return _LOST if asked.cancelled() else asked.result()
            if not life.is_alive():
                return _LOST
            if is_cancelled():
                asked.cancel()
                return RemoteFailure(FallbackReason.CANCELLED, "the compile was cancelled")
        asked.cancel()
        return RemoteFailure(
            FallbackReason.DISPATCHER_TIMEOUT, "the dispatcher did not answer in time"
        )

    def _living(self) -> _Life:
        if self._life is None or not self._life.is_alive():
            return _Life(self._files.path, self._settings)
        return self._life

    def close(self) -> None:
        """End the thread; later compiles fail with `dispatcher-closed`."""
        with self._lock:
            self._is_closed = True
            life, self._life = self._life, None
        if life is not None:
            life.close()


class _Life:
    """A thread with an event loop and, from the first compile on, a dispatcher in it."""

    def __init__(self, farm_file: Path, settings: RemoteSettings) -> None:
        self._farm_file, self._settings = farm_file, settings
        # gRPC needs to watch sockets, which the default (proactor) loop of Windows cannot do.
        self._loop = asyncio.SelectorEventLoop()
        self._stopping, self._opening = asyncio.Event(), asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._stack = AsyncExitStack()
        self._parts: tuple[Farms, Dispatcher] | None = None
        self._thread = threading.Thread(target=self._run, name="hpcc-remote", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ask(self, request: RemoteRequest) -> Future[RemoteOutcome] | None:
        """Start one compile; None if the loop is closed."""
        asked = self._compile(request)
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop is closed
            asked.close()
            return None

    def close(self) -> None:
        """Cancel compiles under way and end the thread."""
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            return  # it is closed already
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception:  # noqa: BLE001 - the thread's root: the next compile starts another one
            _log.exception("the dispatcher failed")

    async def _serve(self) -> None:
        async with self._stack:
            await self._stopping.wait()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _compile(self, request: RemoteRequest) -> RemoteOutcome:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._stopping.is_set():
                return _CLOSED
            return await self._outcome(request)
        finally:
            self._tasks.discard(task)

    async def _outcome(self, request: RemoteRequest) -> RemoteOutcome:
        try:
            async with self._opening:
                farms, dispatcher = self._parts = self._parts or self._open()
        except ImportError as error:
            _log.warning("no compile goes to the farm: %s", error)
            return RemoteFailure(
                FallbackReason.DISPATCHER_START, f"the dispatcher cannot be loaded: {error}"
            )
        from hpcc.dispatch.main import compile_on

        return await compile_on(farms, dispatcher, lambda: request)

    def _open(self) -> tuple[Farms, Dispatcher]:
        from hpcc.dispatch.compile import Dispatcher
        from hpcc.dispatch.main import Farms

        clock, settings = SystemClock(), self._settings
        dispatcher = Dispatcher(
            clock,
            timeout_seconds=settings.timeout_seconds,
            version=__version__,
            build_id=uuid.uuid4().hex,
            parity=settings.parity,
            sharing=demanded(settings.sharing),
        )
        self._stack.callback(dispatcher.close)
        farms = Farms(self._farm_file, self._stack, clock, settings.timeout_seconds)
        return farms, dispatcher
