"""The schedulers' certificates that a client trusts: configured, then as a scheduler announces.

A scheduler announces its farm's certificates over a connection that a trusted one secures. So a
new certificate is known before it is shown, and one that is retired is no longer trusted.

A configured certificate is retired when it was announced once and is not any more. One that was
never announced stays: a scheduler that has just started for the first time is not yet in the
announcements of the others, and a client that forgot it could not reach it when the others end.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError, InfrastructureError
from hpcc.identity.keys import read_secret_file
from hpcc.identity.tls import PinnedPeer

_log: Final = logging.getLogger(__name__)
CERTIFICATES_NAME: Final = "scheduler-certificates.json"
# What reading a file of another form raises; JSON nests.
_UNUSABLE: Final = (
    CallerError, ValueError, TypeError, KeyError, AttributeError, RecursionError,
)  # fmt: skip


class KnownCertificates:
    """The trusted certificates. What was announced is kept in a file for the next process.

    It counts for one configuration: other configured certificates end it.
    """

    def __init__(self, configured_pem: str, file: Path | None) -> None:
        """Read what was announced.

        Raises:
            CallerError: the configured text is not a certificate.
        """
        self._peer = PinnedPeer.from_pem(configured_pem.encode())
        self._file = file
        self._source = hashlib.sha256(self._peer.certificate_pem).hexdigest()
        self._configured = _pems(self._peer.certificate_pem)
        self._seen: frozenset[str] = frozenset()  # which of the configured ones were announced
        self._announced = self._read()

    @property
    def peer(self) -> PinnedPeer:
        """The trusted certificates, and their name."""
        return PinnedPeer(self._announced or self._peer.certificate_pem, self._peer.name)

    def learn(self, announced: Sequence[bytes]) -> bool:
        """Take what a trusted scheduler announced (DER); return whether that changes anything.

        An announcement that is empty, or of another name, changes nothing.
        """
        if not announced:
            return False
        try:
            pems = [PinnedPeer.from_der(der) for der in announced]
        except CallerError as error:
            _log.warning("the scheduler announces what is not a certificate: %s", error)
            return False
        if {pin.name for pin in pems} != {self._peer.name}:
            _log.warning("the scheduler announces certificates of another name")
            return False
        before, seen = self.peer.certificate_pem, self._seen
        texts = [pin.certificate_pem for pin in pems]
        self._see(texts)
        unseen = [c for c in self._configured if _id(c) not in self._seen]
        self._announced = _ordered(self._configured, [*texts, *unseen])
        if self._announced == before and self._seen == seen:
            return False
        self._write()
        if self._announced == before:
            return False
        _log.warning("the scheduler announces %d certificates", len(announced))
        return True

    def _see(self, announced: Sequence[bytes]) -> None:
        self._seen |= {_id(pem) for pem in self._configured if pem in announced}

    def _read(self) -> bytes:
        if self._file is None or not self._file.exists():
            return b""
        try:
            table = json.loads(read_secret_file(self._file))
            if table["configured"] != self._source:
                return b""
            found = PinnedPeer.from_pem(table["certificates"].encode())
            seen = frozenset(map(str, table.get("seen", ())))
        except _UNUSABLE as error:
            _log.warning("%s is not used: %s", self._file, error)
            return b""
        if found.name != self._peer.name:
            return b""
        self._seen = seen
        self._see(_pems(found.certificate_pem) if "seen" not in table else ())
        return found.certificate_pem

    def _write(self) -> None:
        if self._file is None:
            return
        table = {
            "configured": self._source,
            "certificates": self._announced.decode(),
            "seen": sorted(self._seen),
        }
        try:
            write_private_file(self._file, json.dumps(table).encode())
        except InfrastructureError as error:
            _log.warning("announced certificates are not kept: %s", error)


def _pems(text: bytes) -> list[bytes]:
    return [
        c.public_bytes(serialization.Encoding.PEM) for c in x509.load_pem_x509_certificates(text)
    ]


def _id(pem: bytes) -> str:
    return hashlib.sha256(pem).hexdigest()


def _ordered(configured: Sequence[bytes], announced: Sequence[bytes]) -> bytes:
    """Join what is announced, with the configured ones first and in their order.

    The order of configured certificates may be that of the schedulers' addresses.
    """
    kept = [pem for pem in configured if pem in announced]
    return b"".join([*kept, *(pem for pem in announced if pem not in kept)])
