"""QEMU's control channel on an inherited socket: one command, one answer, treated as hostile."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Final

from hpcc.core import IntegrityError

MAX_LINE_BYTES: Final = 64 << 10
_READ_BYTES: Final = 16 << 10
_POLL_SECONDS: Final = 0.005
_FAULT_CHARS: Final = 300
# RAM that is in a separate file is not written into the state again.
_CAPABILITIES: Final = ({"capability": "x-ignore-shared", "state": True},)


class Qmp:
    """Owns `sock`; call `close` when done. The caller sets deadlines."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._buffer = b""

    async def prepare(self) -> None:
        """Exchange greetings and set how memory is saved.

        Raises:
            IntegrityError: an answer is not valid.
            OSError: QEMU refused, with its own text, or closed the connection.
        """
        if "QMP" not in await self._receive():
            raise IntegrityError("no greeting from QEMU", reason="vmm-api")
        await self.call("qmp_capabilities")
        await self.call("migrate-set-capabilities", {"capabilities": list(_CAPABILITIES)})

    async def call(self, name: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run one command and return its result. Events are skipped.

        Raises:
            IntegrityError: the answer is not valid.
            OSError: QEMU refused, with its own text, or closed the connection.
        """
        command: dict[str, object] = {"execute": name}
        if arguments:
            command["arguments"] = dict(arguments)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._sock, json.dumps(command).encode() + b"\n")
        while True:
            answer = await self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise OSError(f"QEMU refused {name}: {str(answer['error'])[:_FAULT_CHARS]}")

    async def finish_migration(self) -> None:
        """Wait until the state is written or read.

        Raises:
            IntegrityError: an answer is not valid.
            OSError: it failed, or QEMU closed the connection.
        """
        while True:
            answer = await self.call("query-migrate")
            status = answer.get("status") if isinstance(answer, dict) else None
            if status == "completed":
                return
            if status in {"failed", "cancelled"}:
                detail = answer.get("error-desc", "") if isinstance(answer, dict) else ""
                raise OSError(f"QEMU's state: {status}: {str(detail)[:_FAULT_CHARS]}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _receive(self) -> Mapping[str, object]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise IntegrityError("an overlong answer from QEMU", reason="vmm-api")
            data = await loop.sock_recv(self._sock, _READ_BYTES)
            if not data:
                raise ConnectionResetError("QEMU hung up its control channel")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise IntegrityError("no JSON from QEMU", reason="vmm-api") from error
        if not isinstance(answer, dict):
            raise IntegrityError("no JSON object from QEMU", reason="vmm-api")
        return answer

    def close(self) -> None:
        """Close the channel; idempotent."""
        self._sock.close()
