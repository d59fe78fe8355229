"""The scheduler's own certificate in its keys directory, and the one that follows it.

A switch renames two files. A process that finds a next certificate without its key finishes the
switch before it reads the pair, as the command would have.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, HpccError
from hpcc.files import sync_directory
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.tls import TlsIdentity, ends_at
from hpcc.ports import Clock
from hpcc.rpc.base.channel import ServerTls

_log: Final = logging.getLogger(__name__)
TLS_NAME: Final = "scheduler.hpcc.internal"
NEXT_DIRECTORY: Final = "next"
_Stamp = tuple[int, ...]


class SchedulerCertificate:
    """`TlsFiles`: new connections get what is in the directory."""

    def __init__(self, keys: Path, clock: Clock) -> None:
        self._keys, self._clock = keys, clock
        self._lock = threading.Lock()
        self._stamp: _Stamp = ()
        # When the certificate of new connections ends, in seconds since the epoch.
        self.ends_at = 0.0

    def load(self) -> TlsIdentity:
        """Return the certificate; the first call makes it.

        Raises:
            CallerError: the files do not belong together, or others can read the key.
            InfrastructureError: they cannot be written.
        """
        with self._lock:
            finish_switch(self._keys)
            self._stamp = self._stamp_now()
            tls = load_or_create_tls(self._keys, TLS_NAME, clock=self._clock)
            self._stamp, self.ends_at = self._stamp_now(), ends_at(tls.certificate_der)
            return tls

    def own(self) -> tuple[bytes, ...]:
        """Return the certificates of this directory in DER: what serves, and what will.

        What cannot be read is logged and left out.
        """
        try:
            finish_switch(self._keys)
            tls = load_or_create_tls(self._keys, TLS_NAME, clock=self._clock)
            following = next_or_none(self._keys, self._clock)
        except HpccError as error:
            _log.error("the certificate is not announced: %s", error)
            return ()
        return tuple(t.certificate_der for t in (tls, following) if t is not None)

    def changed_or_none(self) -> ServerTls | None:
        """Return the new pair if there is one; never raises."""
        with self._lock:
            if self._stamp_now() == self._stamp:
                return None
        try:
            tls = self.load()
        except HpccError as error:
            _log.error("the previous certificate stays in use: %s", error)
            return None
        _log.warning("new connections get another certificate")
        return ServerTls(tls.key_pem, tls.certificate_pem)

    def _stamp_now(self) -> _Stamp:
        try:
            status = (self._keys / f"{TLS_NAME}.crt").stat()
        except OSError:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size


def next_or_none(keys: Path, clock: Clock) -> TlsIdentity | None:
    """Return the pair that was announced and does not serve yet.

    Raises:
        HpccError: as `make_next`.
    """
    return make_next(keys, clock) if _has_next(keys) else None


def make_next(keys: Path, clock: Clock) -> TlsIdentity:
    """Return the next pair; the first call makes it.

    Raises:
        CallerError: the files do not belong together, or others can read the key.
        InfrastructureError: they cannot be written.
    """
    return load_or_create_tls(keys / NEXT_DIRECTORY, TLS_NAME, clock=clock)


def switch(keys: Path) -> None:
    """Put the next pair in place of the current one, whose key is gone then.

    Raises:
        CallerError: there is no next pair.
    """
    following = keys / NEXT_DIRECTORY
    if not _has_next(keys):
        raise CallerError(
            "no certificate was announced here: `hpcc scheduler announce-certificate`",
            reason="certificate",
        )
    (following / f"{TLS_NAME}.key").replace(keys / f"{TLS_NAME}.key")
    finish_switch(keys)


def _has_next(keys: Path) -> bool:
    """Return whether there is a next pair: a command that makes one may be at work."""
    following = keys / NEXT_DIRECTORY
    return all((following / f"{TLS_NAME}.{end}").is_file() for end in ("key", "crt"))


def finish_switch(keys: Path) -> None:
    """Move the next certificate if its key was moved already."""
    following = keys / NEXT_DIRECTORY
    certificate = following / f"{TLS_NAME}.crt"
    if certificate.is_file() and not (following / f"{TLS_NAME}.key").exists():
        with suppress(FileNotFoundError):  # another process was faster
            certificate.replace(keys / f"{TLS_NAME}.crt")
        with suppress(OSError):
            following.rmdir()
            sync_directory(keys)
