"""The connection that receives broadcasts. It reconnects for as long as the store is open."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, Final

from hpcc.control.connect import connect, store_errors
from hpcc.control.database import DatabaseConfig
from hpcc.control.fanout import Fanout
from hpcc.ports import MAX_NAME_CHARS, REREAD, Clock, ControlStoreError, News

_log: Final = logging.getLogger(__name__)
CHANNEL: Final = "hpcc_control"
_RETRY_SECONDS: Final = 0.25
_MAX_RETRY_SECONDS: Final = 2.0
# A connection that a firewall dropped looks open, so it must answer this often.
_PING_SECONDS: Final = 5.0
_PARTS: Final = 3


class BroadcastListener:
    """Feeds a `Fanout`: `REREAD` after each new connection, then the broadcasts it receives."""

    def __init__(self, config: DatabaseConfig, fanout: Fanout, clock: Clock) -> None:
        self._config, self._fanout, self._clock = config, fanout, clock

    async def run(self) -> None:
        """Listen until cancelled."""
        delay = _RETRY_SECONDS
        while True:
            try:
                with store_errors(self._config):
                    connection = await connect(self._config)
                delay = _RETRY_SECONDS
                await self._listen(connection)
            except ControlStoreError as error:
                _log.warning("cannot receive the broadcasts of other schedulers: %s", error)
            await self._clock.sleep(delay)
            delay = min(delay * 2, _MAX_RETRY_SECONDS)

    async def _listen(self, connection: Any) -> None:  # noqa: ANN401 - asyncpg ships no types
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            with store_errors(self._config):
                await connection.add_listener(CHANNEL, self._heard)
            # Only now: watchers read again after this, and later broadcasts reach the listener.
            self._fanout.send(REREAD)
            _log.info("listening to the other schedulers through %s", self._config)
            while not ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PING_SECONDS):
                        await ended.wait()
                        break
                with store_errors(self._config):
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        news = news_or_none(payload)
        if news is None:
            _log.warning(
                "a broadcast in the database is not from hpcc: check who else may use the database"
            )
        else:
            self._fanout.send(news)


def news_or_none(payload: str) -> News | None:
    """Return a broadcast; None if it is malformed. Any database client can send anything."""
    try:
        parts = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parts, list) or len(parts) != _PARTS:
        return None
    if not all(isinstance(p, str) for p in parts):
        return None
    origin, topic, text = parts
    if not (len(origin) <= MAX_NAME_CHARS and 0 < len(topic) <= MAX_NAME_CHARS):
        return None
    return News(topic, text, origin)
