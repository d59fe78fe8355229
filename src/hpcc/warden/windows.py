"""A warden on Windows: one process per guest, with a token without rights, in a separate job.

Its standard input is a duplex pipe to the worker (`hpcc.wire`, `hpcc.wire.warden_share`). See
docs/adr/0038-warden-on-windows.md. Tested under Wine, not yet on Windows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from hpcc.warden.harden import harden
from hpcc.warden.session import serve_streams
from hpcc.wire.warden_share import (
    WARDEN_SHARE_HEAD_BYTES,
    decode_warden_share_length,
    encode_warden_pid,
)

_READ_AHEAD_BYTES = 512 << 10

if sys.platform == "win32":
    import msvcrt
    from asyncio.windows_utils import PipeHandle

    async def _work() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ_AHEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        # As create_pipe_connection does for a pipe that it opened by name.
        pipe = PipeHandle(msvcrt.get_osfhandle(sys.stdin.fileno()))
        transport = loop._make_duplex_pipe_transport(pipe, protocol)  # noqa: SLF001 - no public way
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        writer.write(encode_warden_pid(os.getpid()))
        head = await reader.readexactly(WARDEN_SHARE_HEAD_BYTES)
        share = await reader.readexactly(decode_warden_share_length(head))
        guest = socket.fromshare(share)
        guest.settimeout(0)
        harden()
        await serve_streams(guest, reader, writer)

    def main_on_windows() -> None:
        """Run as one guest's warden until the guest is lost or the worker hangs up."""
        asyncio.run(_work())
        # An orderly exit would import modules, which is not possible any more.
        os._exit(0)

else:

    def main_on_windows() -> None:
        """Refuse to run: on other systems a warden is forked."""
        raise SystemExit("not Windows")
