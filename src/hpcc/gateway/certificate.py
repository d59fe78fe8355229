"""Reads the gateway's key and certificate, which are replaced every few weeks while it serves."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hpcc.core import CallerError, HpccError
from hpcc.identity.certificates import UNREADABLE
from hpcc.identity.login.file import read_own_file
from hpcc.rpc.base.channel import ServerTls

_log: Final = logging.getLogger(__name__)
_MAX_CHAIN_BYTES: Final = 256 << 10
_MAX_KEY_BYTES: Final = 64 << 10
_Stamp = tuple[tuple[int, int, int], ...]


class CertificateFiles:
    """`TlsFiles`: watches both files, and adopts them together if they are a pair."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._lock = threading.Lock()
        self._stamp: _Stamp = ()
        # When the certificate in use ends, in seconds since the epoch; 0 before the first `read`.
        self.ends_at = 0.0

    def read(self) -> ServerTls:
        """Read key and certificate chain.

        Raises:
            CallerError: a file cannot be read or used, or the key is another certificate's.
        """
        with self._lock:
            self._stamp = self._stamp_now()
            return self._read()

    def changed_or_none(self) -> ServerTls | None:
        """Return the new pair if the files have changed and are valid, else None; never raises."""
        # After any error new connections get the previous certificate.
        with self._lock:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return None
            # Once for each state of the files: an invalid one is not read for each connection.
            self._stamp = stamp
            try:
                found = self._read()
            except (HpccError, OSError) as error:
                _log.error("the previous certificate stays in use: %s", error)
                return None
        _log.warning("new connections get the certificate in %s", self._certificate)
        return found

    def _stamp_now(self) -> _Stamp:
        found = []
        for path in (self._certificate, self._key):
            try:
                status = path.stat()
            except OSError:
                return ()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _read(self) -> ServerTls:
        try:
            key = read_own_file(self._key, max_bytes=_MAX_KEY_BYTES)
        except FileNotFoundError as error:
            raise CallerError(f"{self._key} does not exist", reason="gateway-key") from error
        chain = _chain(self._certificate)
        try:
            public = serialization.load_pem_private_key(key, None).public_key()
            own = x509.load_pem_x509_certificates(chain)[0]
            is_pair = public == own.public_key()
        except UNREADABLE as error:
            raise CallerError(
                f"{self._key} or {self._certificate} is not PEM, or the key has a password",
                reason="gateway-certificate",
            ) from error
        # While both files are being replaced, one is new before the other.
        if not is_pair:
            raise CallerError(
                f"{self._key} is not the key of the first certificate in {self._certificate}",
                reason="gateway-certificate",
            )
        self.ends_at = own.not_valid_after_utc.timestamp()
        return ServerTls(key, chain)


def _chain(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            chain = file.read(_MAX_CHAIN_BYTES + 1)
    except OSError as error:
        raise CallerError(
            f"cannot read {path}: {error.strerror}", reason="gateway-certificate"
        ) from error
    if len(chain) > _MAX_CHAIN_BYTES or b"-----BEGIN CERTIFICATE-----" not in chain:
        raise CallerError(f"{path} holds no PEM certificate", reason="gateway-certificate")
    return chain
