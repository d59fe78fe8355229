"""A TLS identity as bytes, and the pin of a peer's certificate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from hpcc.core import CallerError
from hpcc.identity.certificates import UNREADABLE

MAX_CERTIFICATE_BYTES: Final = 16 << 10


def certificate_id(der: bytes) -> str:
    """Return the stable name of a certificate: the audience of route tokens for its holder."""
    return hashlib.sha256(der).hexdigest()[:32]


def ends_at(der: bytes) -> float:
    """Return when a certificate ends, in seconds since the epoch."""
    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """A private key and its self-signed certificate; `name` is the certificate's DNS name."""

    name: str
    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    certificate_der: bytes


@dataclass(frozen=True, slots=True)
class PinnedPeer:
    """The only certificates accepted from a peer, and the name to check them against."""

    certificate_pem: bytes
    name: str

    @classmethod
    def from_der(cls, der: bytes) -> PinnedPeer:
        """Return the pin for a certificate in DER.

        Raises:
            CallerError: too large or not a certificate.
        """
        return cls._of(der, is_pem=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> PinnedPeer:
        """Return the pin for a PEM certificate, or several with one name; see `from_der`."""
        return cls._of(pem, is_pem=True)

    @classmethod
    def _of(cls, data: bytes, *, is_pem: bool) -> PinnedPeer:
        if len(data) > MAX_CERTIFICATE_BYTES:
            raise CallerError("certificate is too large", reason="certificate")
        try:
            found = (
                x509.load_pem_x509_certificates(data)
                if is_pem
                else [x509.load_der_x509_certificate(data)]
            )
            names = {_common_name(certificate) for certificate in found}
        except UNREADABLE as error:
            raise CallerError("not an X.509 certificate", reason="certificate") from error
        if names == {""}:
            raise CallerError("certificate has no common name", reason="certificate")
        if len(names) != 1:
            raise CallerError("certificates of peers with other names", reason="certificate")
        pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in found)
        return cls(pem, names.pop())


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
