"""Starts a signer: opens its files, gives up its rights, and serves until its worker ends."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.signer.ledger import Ledger, LedgerState
from hpcc.audit.signer.messages import MAX_STATE_BYTES
from hpcc.audit.signer.place import KEY_NAME, require_private
from hpcc.audit.signer.served import Served, serve
from hpcc.audit.signer.slots import SignerStateError, StateSlots, decode_state
from hpcc.core import CallerError, HpccError
from hpcc.files import access_of, open_file
from hpcc.files.whole import Sync, whole_file

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_NO_NEW_PRIVS: Final = 38
# The JSON of the largest record takes 300 MiB at worst.
_ADDRESS_SPACE_BYTES: Final = 1 << 30
_LIMITS: Final = {
    resource.RLIMIT_AS: _ADDRESS_SPACE_BYTES,
    resource.RLIMIT_FSIZE: MAX_STATE_BYTES + (1 << 20),
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 0,
}
_MAX_KEY_BYTES: Final = 4096
_EXIT_REFUSED: Final = 2


def _prctl(option: int, argument: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    rest = [ctypes.c_ulong(0)] * 3
    if libc.prctl(option, argument, *rest) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """Return the key of a signer; its first start creates it.

    Raises:
        CallerError: the file is not such a key.
        OSError: it cannot be read or written.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with whole_file(path, sync=Sync.NAME) as file:
            file.write(pem)
        return key
    with os.fdopen(descriptor, "rb") as file:
        if not access_of(descriptor).is_regular:
            raise CallerError(f"{path} is not an ordinary file: remove it", reason="keys")
        require_private(path, descriptor)
        data = file.read(_MAX_KEY_BYTES)
    try:
        loaded = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise CallerError(f"{path} is not a private key", reason="keys") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise CallerError(f"{path} is not an Ed25519 key", reason="keys")
    return loaded


def open_signer(directory: Path, worker: str, uid: int | None) -> Served:
    """Open the files of a signer, with its lock; they stay open until the process ends.

    Raises:
        HpccError: they are another signer's, damaged, or in use.
        OSError: they cannot be opened.
    """
    slots = StateSlots(directory)
    data, path = slots.load(), directory / KEY_NAME
    if data is not None and not path.exists():
        raise SignerStateError(f"{path} is missing, and the trail was signed with it")
    key = load_or_create_key(path)
    ledger, state = Ledger(worker, key), _state_or_none(data)
    if state is not None and (state[0].worker, state[1]) != (worker, ledger.public_key):
        raise SignerStateError(
            f"{directory} signs the trail of {state[0].worker!r}, not of {worker!r}, or with"
            " another key"
        )
    if uid is not None:
        for file in directory.iterdir():
            os.chown(file, uid, uid, follow_symlinks=False)
    return Served(ledger, state[0] if state is not None else None, worker, slots.store)


def _state_or_none(data: bytes | None) -> tuple[LedgerState, bytes] | None:
    return None if data is None else decode_state(data)


def give_up_rights(uid: int | None) -> None:
    """Become another user, and keep others from reading this memory.

    Raises:
        OSError: a step failed.
    """
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    for which, limit in _LIMITS.items():
        resource.setrlimit(which, (limit, limit))


def main(arguments: Sequence[str]) -> None:
    """Serve a worker. Files that cannot be used end the process; standard error says why."""
    control, heads, directory, worker = arguments[:4]
    uid = int(arguments[4]) if arguments[4:] else None
    # It ends when its worker does: a worker that is asked to end signs what it still does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connections = [socket.socket(fileno=int(fd)) for fd in (control, heads)]
    os.umask(0o077)
    try:
        _prctl(_PR_SET_NAME, ctypes.c_char_p(b"hpcc-signer"))
        served = open_signer(Path(directory), worker, uid)
        os.chdir("/")
        give_up_rights(uid)
    except (HpccError, OSError) as error:
        # The worker reads it: it gets nothing else from a signer that cannot begin.
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(_EXIT_REFUSED)
    try:
        serve(connections[0], connections[1], served)
    except HpccError:
        os._exit(1)
    # Its threads wait for what does not come any more.
    os._exit(0)
