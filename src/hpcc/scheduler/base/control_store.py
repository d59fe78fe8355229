"""Opens the control store of a configuration: for a scheduler, and for an operator's command."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Final

from hpcc.config.private_file import make_private_directory
from hpcc.control.database import read_database_config
from hpcc.control.embedded import EmbeddedControlStore
from hpcc.control.postgres import open_postgres
from hpcc.identity.key_ring import Sealer
from hpcc.identity.keys import load_or_create_seal, read_secret_file
from hpcc.ports import Clock, ControlStore, ControlStoreError
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.signing import SigningKeys

_log: Final = logging.getLogger(__name__)
STATE_NAME: Final = "scheduler.sqlite"
_RETRY_SECONDS: Final = 1.0


@asynccontextmanager
async def open_control(
    config: SchedulerConfig,
    clock: Clock,
    *,
    is_waiting: bool = True,
    on_wait: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[tuple[ControlStore, SigningKeys]]:
    """Yield the control store of a configuration, and the farm's keys from it.

    Waits for a database that does not answer, because nothing can be served without keys, and tells
    `on_wait` why. An operator's command does not wait (`is_waiting` false).

    Raises:
        CallerError: the database lacks its tables, or a file is invalid.
        ControlStoreError: the database does not answer, and `is_waiting` is false.
        InfrastructureError: the embedded store cannot be used.
        IntegrityError: the keys in the store are another farm's.
    """
    async with open_store(config, clock) as (store, check):
        keys = _keys(config, store, read_seal(config), clock)
        while True:
            try:
                await check()
                await keys.load()
            except ControlStoreError as error:
                if not is_waiting:
                    raise
                _log.warning("waiting for the control store: %s", error)
                on_wait(f"waiting for the control store: {error}")
                await clock.sleep(_RETRY_SECONDS)
            else:
                break
        yield store, keys


def read_seal(config: SchedulerConfig) -> bytes:
    """Return the sealing key. Without a database the first call creates it.

    Raises:
        CallerError: there is none for the database, or the file is not private.
    """
    if config.database:
        return read_secret_file(config.sealing_file)
    return load_or_create_seal(config.sealing_file)


async def _no_check() -> None:
    pass


@asynccontextmanager
async def open_store(
    config: SchedulerConfig, clock: Clock
) -> AsyncGenerator[tuple[ControlStore, Callable[[], Coroutine[None, None, None]]]]:
    """Yield the control store of a configuration, and a check that it can be used.

    Raises:
        CallerError: a file is invalid. The check raises it if the database lacks its tables.
        InfrastructureError: the embedded store cannot be used.
    """
    if not config.database:
        make_private_directory(config.state)
        with EmbeddedControlStore(config.state / STATE_NAME, clock) as embedded:
            yield embedded, _no_check
        return
    database = read_database_config(config.database, config.database_password_file)
    async with open_postgres(database, clock) as store:
        yield store, store.check


def _keys(config: SchedulerConfig, store: ControlStore, seal: bytes, clock: Clock) -> SigningKeys:
    return SigningKeys(
        store,
        Sealer(seal),
        clock,
        key_seconds=config.key_seconds,
        lifetime_seconds=max(config.token_seconds, config.session_seconds),
    )
