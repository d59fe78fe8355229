"""Wardens without a process: `local_wardens` do real work in the test's loop, `lying_wardens` lie.

Pass either launcher to a channel in place of the zygote's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from hpcc.runtime.channel.warden import WardenEnds
from hpcc.runtime.channel.warden_link import Launch
from hpcc.warden.session import serve
from hpcc.wire import warden as wire

type WardenScript = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
type _Work = Callable[[socket.socket, socket.socket], Coroutine[None, None, None]]


def local_wardens() -> Launch:
    """Return a launcher of wardens that work in this process."""
    return _launcher(serve)


def lying_wardens(script: WardenScript, *, fate: int = 0) -> Launch:
    """Return a launcher of wardens that send the frames of `script` and ignore the guest.

    `fate` is the wait status that each warden reports at its end.
    """

    async def play(guest: socket.socket, worker: socket.socket) -> None:
        guest.close()
        reader, writer = await asyncio.open_connection(sock=worker)
        try:
            await script(reader, writer)
        finally:
            writer.close()

    return _launcher(play, fate)


def _launcher(work: _Work, fate: int = 0) -> Launch:
    def launch(guest: socket.socket) -> WardenEnds:
        loop = asyncio.get_running_loop()
        stream, warden_stream = socket.socketpair()
        line, zygote_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = guest.dup()
        for end in (stream, warden_stream, line, zygote_line, own):
            end.settimeout(0)

        async def run() -> None:
            await work(own, warden_stream)

        def ended(task: asyncio.Task[None]) -> None:
            loop.remove_reader(zygote_line)
            with suppress(OSError):  # the worker has hung up
                zygote_line.send(wire.encode_fate(fate))
            for end in (zygote_line, warden_stream, own):
                end.close()
            if not task.cancelled():
                task.result()

        def hung_up() -> None:
            loop.remove_reader(zygote_line)
            task.cancel()

        # No pid, so that nothing kills this process or counts its CPU time.
        zygote_line.send(wire.encode_fate(0))
        task = loop.create_task(run())
        task.add_done_callback(ended)
        loop.add_reader(zygote_line, hung_up)
        return WardenEnds(stream, line)

    return launch
