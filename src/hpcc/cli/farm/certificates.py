"""`hpcc scheduler certificates`, and `announce-`, `use-` and `retire-certificate`."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hpcc.cli.base.terminal import emit
from hpcc.cli.farm.control import add_config, scheduler_config
from hpcc.core import CallerError, NotFoundError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.scheduler.base.config import SchedulerConfig
    from hpcc.scheduler.certificates import CertificateBook

_TIMEOUT_SECONDS = 60.0


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the four actions below `hpcc scheduler`."""
    rows = (
        ("certificates", _list, "list the certificates that clients trust"),
        ("announce-certificate", _announce, "make the next certificate; clients learn it"),
        ("use-certificate", _use, "let this scheduler show the next certificate"),
        ("retire-certificate", _retire, "let clients forget a certificate"),
    )
    for name, handler, text in rows:
        parser = actions.add_parser(name, help=text, description=handler.__doc__)
        if handler is _use:
            parser.add_argument(
                "--now", action="store_true", help="even if clients had no time to learn it"
            )
        if handler is _retire:
            parser.add_argument("id", metavar="ID", help="as `certificates` lists it")
        add_config(parser)
        parser.set_defaults(handler=handler)


def _list(args: argparse.Namespace) -> int:
    """List each certificate, since when it is announced, and its part at this scheduler."""
    config = scheduler_config(args)

    async def listed() -> list[tuple[str, str, float]]:
        async with _book(config) as book:
            parts = _parts(config)
            found = await book.read()
            return [(kid, parts.get(kid, "other"), known.since) for kid, known in found.items()]

    emit(f"{'ID':32}  {'PART':7}  SINCE")
    for kid, part, since in sorted(asyncio.run(listed()), key=lambda row: row[2]):
        at = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        emit(f"{kid}  {part:7}  {at}")
    return 0


def _announce(args: argparse.Namespace) -> int:
    """Make the certificate that this scheduler will show, in its keys directory, and announce it.

    Daemons learn it when their session is renewed (an hour), workers within a minute. Repeating
    the command changes nothing. The text that it prints belongs into the farm.toml that people
    log in with, and into the config files of gateways.
    """
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.certificate import finish_switch, make_next

    config = scheduler_config(args)
    finish_switch(config.keys)
    tls = make_next(config.keys, SystemClock())

    async def announced() -> str:
        async with _book(config) as book:
            return await book.announce(tls.certificate_der)

    emit(f"certificate {asyncio.run(announced())} is announced")
    emit(tls.certificate_pem.decode(), end="")
    return 0


def _use(args: argparse.Namespace) -> int:
    """Show the announced certificate on new connections; the running scheduler notices it.

    Without --now this is refused until each daemon that has worked meanwhile has learned it.
    """
    from hpcc.identity.tls import certificate_id
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.certificate import finish_switch, next_or_none, switch

    config, clock = scheduler_config(args), SystemClock()
    finish_switch(config.keys)
    tls = next_or_none(config.keys, clock)

    async def since(kid: str) -> float:
        async with _book(config) as book:
            found = (await book.read()).get(kid)
            return clock.now() if found is None else found.since

    kid = certificate_id(tls.certificate_der) if tls is not None else ""
    if tls is not None and not args.now:
        left = asyncio.run(since(kid)) + config.session_seconds - clock.now()
        if left > 0:
            raise CallerError(
                f"clients need {left:.0f} s more to learn certificate {kid}, or --now",
                reason="certificate",
            )
    switch(config.keys)
    emit(f"certificate {kid} is shown on new connections")
    return 0


def _retire(args: argparse.Namespace) -> int:
    """Announce a certificate no more: clients that learn this trust it no longer.

    It is refused for what this scheduler shows. Use it when no scheduler shows the certificate.
    """
    config, kid = scheduler_config(args), str(args.id)

    async def retired() -> None:
        async with _book(config) as book:
            if kid not in await book.read():
                raise NotFoundError(f"certificate {kid[:64]!r} is not announced")
            if kid in _parts(config):
                raise CallerError("this scheduler shows it, or will", reason="certificate")
            await book.retire(kid)

    asyncio.run(retired())
    emit(f"certificate {kid} is retired")
    return 0


def _parts(config: SchedulerConfig) -> dict[str, str]:
    """Return what this scheduler's certificates are for, by id."""
    from hpcc.identity.tls import certificate_id
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.certificate import SchedulerCertificate, next_or_none

    clock = SystemClock()
    own = SchedulerCertificate(config.keys, clock).load()
    following = next_or_none(config.keys, clock)
    parts = {} if following is None else {certificate_id(following.certificate_der): "next"}
    return parts | {certificate_id(own.certificate_der): "serving"}


@asynccontextmanager
async def _book(config: SchedulerConfig) -> AsyncGenerator[CertificateBook]:
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.control_store import open_control
    from hpcc.scheduler.certificates import CertificateBook

    log_to_stderr(logging.WARNING)
    clock = SystemClock()
    async with (
        asyncio.timeout(_TIMEOUT_SECONDS),
        open_control(config, clock, is_waiting=False) as (store, keys),
    ):
        yield CertificateBook(store, keys.sealer, clock)
