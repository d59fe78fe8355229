"""`hpcc web --local`: serves pages about this user's builds on loopback."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from typing import Final

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths

_HOST: Final = "127.0.0.1"
_ANSWER_SECONDS: Final = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    web = subparsers.add_parser(
        "web", help="show this machine's builds in a browser", description=_web.__doc__
    )
    web.add_argument(
        "--local",
        action="store_true",
        required=True,
        help="for one user, on this machine's loopback address only",
    )
    web.add_argument(
        "--port", type=int, default=0, help="the port (default: one that the system chooses)"
    )
    web.set_defaults(handler=_web)


def _web(args: argparse.Namespace) -> int:
    """Show this user's builds in a browser on this machine, live, until Ctrl-C.

    It prints a link that works once, in one browser. Other users of the machine see nothing.
    """
    from hpcc.core.endpoints import check_port
    from hpcc.obs.logs import log_to_stderr

    # An error may hold names from a record: this one escapes them.
    log_to_stderr(logging.WARNING)
    check_port("--port", args.port)
    asyncio.run(_serve(os.fspath(Paths.from_env(os.environ).cache), args.port))
    return 0


async def _serve(directory: str, port: int) -> None:
    from hpcc.cli.web.session import BrowserSession
    from hpcc.cli.web.shell import HEADERS
    from hpcc.cli.web.site import Site
    from hpcc.obs.http.serve import MAX_HEAD_BYTES, BoundedServer, listen
    from hpcc.ports import SystemClock

    end, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    session = BrowserSession()
    site = Site(directory, session, SystemClock())
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
