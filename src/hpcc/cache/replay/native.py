"""Calls native/replay.c through ctypes: plans as bytes, calls without the GIL."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import socket
from collections.abc import Callable
from typing import Final

from hpcc.cache.replay.engine import REQUEST_BUFFER_BYTES, Plan
from hpcc.cache.replay.plan_bytes import encode_plan

# The library is beside the package, under a name that cannot be imported by mistake.
LIBRARY: Final = "_hpcc_native"
VERSION: Final = 2


class Native:
    """The native `Engine`."""

    name = "native"

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self._replay = library.hpcc_replay
        self._replay.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int)
        self._replay.restype = ctypes.c_int
        self._accept = library.hpcc_accept
        self._accept.restype = ctypes.c_int

    def prepare(self, plan: Plan) -> bytes:
        """See `Engine.prepare`."""
        return encode_plan(plan)

    def replay(self, prepared: object, connection: int) -> int:
        """See `Engine.replay`."""
        assert type(prepared) is bytes
        outcome: int = self._replay(prepared, len(prepared), connection)
        return outcome

    def receiver(self, listener: socket.socket, uid: int) -> Callable[[], tuple[int, bytes]]:
        """See `Engine.receiver`."""
        buffer = ctypes.create_string_buffer(REQUEST_BUFFER_BYTES)
        view = memoryview(buffer)
        got = ctypes.c_uint32()
        accept = self._accept
        arguments = (
            ctypes.c_int(listener.fileno()),
            ctypes.c_uint32(uid),
            buffer,
            ctypes.c_uint32(REQUEST_BUFFER_BYTES),
            ctypes.byref(got),
        )

        def receive() -> tuple[int, bytes]:
            fd: int = accept(*arguments)
            if fd < 0:
                raise OSError(-fd, os.strerror(-fd))  # EPERM becomes a PermissionError
            return fd, bytes(view[: got.value])

        return receive


def load_native() -> Native:
    """Load the library that was built with the launcher.

    Raises:
        OSError: it is missing, cannot be loaded or has another version.
    """
    spec = importlib.util.find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        raise OSError("it was not built; install hpcc again where a C compiler is")
    library = ctypes.CDLL(spec.origin)
    if library.hpcc_native_version() != VERSION:
        raise OSError(f"{spec.origin} is of another version; install hpcc again")
    return Native(library)
