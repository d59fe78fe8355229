"""`hpcc web`: serves pages about this user's builds, and about the farm, on loopback."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths

if TYPE_CHECKING:
    from hpcc.cli.base.farm_object import FarmObjects
    from hpcc.cli.base.farm_observer import FarmObserver
    from hpcc.cli.web.site import FarmPages
    from hpcc.ports import Clock

_HOST: Final = "127.0.0.1"
_ANSWER_SECONDS: Final = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    web = subparsers.add_parser(
        "web", help="show the farm and this machine's builds in a browser", description=_web.__doc__
    )
    web.add_argument(
        "--local",
        action="store_true",
        help="only this machine's builds; no farm is asked",
    )
    web.add_argument(
        "--port", type=int, default=0, help="the port (default: one that the system chooses)"
    )
    web.set_defaults(handler=_web)


def _web(args: argparse.Namespace) -> int:
    """Show the farm and this user's builds in a browser on this machine, live, until Ctrl-C.

    The farm is the one of `hpcc login` or `hpcc up`; its schedulers decide what this login sees. It
    prints a link that works once, in one browser. Other users of the machine see nothing.
    """
    from hpcc.config.extras import require_extra
    from hpcc.core.endpoints import check_port
    from hpcc.obs.logs import log_to_stderr

    # An error may hold names from a record: this one escapes them.
    log_to_stderr(logging.WARNING)
    check_port("--port", args.port)
    paths = Paths.from_env(os.environ)
    if args.local:
        asyncio.run(_serve(paths, args.port))
    else:
        require_extra("client", "`hpcc web` without --local")
        asyncio.run(_serve_farm(paths, args.port))
    return 0


async def _serve_farm(paths: Paths, port: int) -> None:
    from hpcc.cli.base.farm_object import FarmObjects
    from hpcc.cli.base.farm_observer import FarmObserver
    from hpcc.ports import SystemClock

    clock = SystemClock()
    async with FarmObserver(paths, clock) as observer, FarmObjects(paths, clock) as objects:
        observer.farm()  # without one the command ends here, with what to do
        await _serve(paths, port, (observer, objects))


async def _serve(
    paths: Paths, port: int, asks: tuple[FarmObserver, FarmObjects] | None = None
) -> None:
    from hpcc.cli.web.parts.shell import HEADERS
    from hpcc.cli.web.session import BrowserSession
    from hpcc.cli.web.site import Site
    from hpcc.obs.http.serve import MAX_HEAD_BYTES, BoundedServer, listen
    from hpcc.ports import SystemClock

    end, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    session, clock = BrowserSession(), SystemClock()
    farm = None if asks is None else _farm_site(*asks, session.root, clock)
    site = Site(os.fspath(paths.cache), session, clock, farm)
    bounded = BoundedServer(
        site.answer,
        lambda _: "page",
        loopback_only=True,
        answer_seconds=_ANSWER_SECONDS,
        always=HEADERS,
    )
    listener = listen("web", _HOST, port)
    bound = listener.getsockname()[1]
    server = await asyncio.start_server(bounded.connected, sock=listener, limit=MAX_HEAD_BYTES)
    try:
        emit(f"http://{_HOST}:{bound}{session.link}", flush=True)
        emit("The link works once, in one browser. Ctrl-C ends the pages.", flush=True)
        await end.wait()
    finally:
        server.close()


def _farm_site(observer: FarmObserver, objects: FarmObjects, root: str, clock: Clock) -> FarmPages:
    from hpcc.cli.web.farm_site import FarmSite

    return FarmSite(observer, objects, root, clock)
