"""Worker certificates: signed by the farm's own CA, for one worker id and for client use only.

Pure except for randomness. A request (CSR) contributes only its public key. The scheduler sets the
name, the lifetime and the uses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hpcc.core import CallerError, PolicyError
from hpcc.identity.certificates import UNREADABLE

# A request for a P-256 key has about 300 bytes.
MAX_CSR_BYTES: Final = 2048
MAX_WORKER_CERTIFICATE_BYTES: Final = 4096
_CA_NAME: Final = "hpcc worker CA"
_CA_DAYS: Final = 3650
# Clocks of scheduler and worker may differ by this much.
_SKEW: Final = timedelta(minutes=5)

type WorkerPublicKey = ec.EllipticCurvePublicKey


class WorkerCertificateError(PolicyError):
    """A worker's certificate is not valid at this farm now."""

    default_reason = "worker-certificate"


@dataclass(frozen=True, slots=True)
class WorkerPass:
    """A certificate's worker id, key id and end (seconds since the epoch)."""

    worker_id: str
    key_id: str
    expires_at: float


class WorkerCa:
    """The farm's CA for worker certificates."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self._certificate = key, certificate
        self.certificate_pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def new(cls, now: float) -> WorkerCa:
        """Return a new CA that is valid from `now`, in seconds since the epoch."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _CA_NAME)])
        at = datetime.fromtimestamp(now, UTC)
        certificate = (
            _builder(name, name, key.public_key(), at, at + timedelta(days=_CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(is_ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key_der: bytes, certificate_pem: bytes) -> WorkerCa:
        """Return the CA that `key_der` and `certificate_pem` were read from.

        Raises:
            CallerError: they are malformed, or do not belong together.
        """
        try:
            key = serialization.load_der_private_key(key_der, password=None)
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            is_ours = certificate.public_key() == key.public_key()
        except UNREADABLE as error:
            raise CallerError("not a worker CA", reason="worker-ca") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_ours:
            raise CallerError("the worker CA's key is not its certificate's", reason="worker-ca")
        return cls(key, certificate)

    @property
    def key_der(self) -> bytes:
        """Return the private key in DER; seal it before storing it."""
        return self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def issue(
        self, public: ec.EllipticCurvePublicKey, worker_id: str, now: float, seconds: float
    ) -> bytes:
        """Return a new certificate for a worker, in PEM."""
        at = datetime.fromtimestamp(now, UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, worker_id)])
        ends = min(at + timedelta(seconds=seconds), self._certificate.not_valid_after_utc)
        certificate = (
            _builder(subject, self._certificate.subject, public, at, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def check(self, pem: bytes, now: float) -> WorkerPass:
        """Return what a peer's certificate says, after checking it.

        Raises:
            WorkerCertificateError: another CA signed it, or it is not valid at `now`.
        """
        if not 0 < len(pem) <= MAX_WORKER_CERTIFICATE_BYTES:
            raise WorkerCertificateError("no worker certificate, or too large a one")
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.verify_directly_issued_by(self._certificate)
            found = read_pass(certificate)
        except (InvalidSignature, *UNREADABLE) as error:
            raise WorkerCertificateError(
                "the certificate is not of this farm's worker CA", reason="worker-foreign-ca"
            ) from error
        if now < certificate.not_valid_before_utc.timestamp():
            raise WorkerCertificateError("the certificate is not valid yet")
        return found


def read_pass(certificate: x509.Certificate) -> WorkerPass:
    """Return what a worker's certificate says; the caller has checked who signed it.

    Raises:
        ValueError: it is not a worker's certificate.
    """
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    public = certificate.public_key()
    if len(names) != 1 or not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("not a worker's certificate")
    return WorkerPass(
        worker_id=str(names[0].value),
        key_id=worker_key_id(public),
        expires_at=certificate.not_valid_after_utc.timestamp(),
    )


def worker_key_id(public: ec.EllipticCurvePublicKey) -> str:
    """Return the stable name of a worker's key: the start of its SHA-256."""
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()[:32]


def new_worker_key() -> tuple[bytes, bytes]:
    """Return a new worker key in PEM, and a request for its certificate in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, _request(key)


def request_of(key_pem: bytes) -> bytes:
    """Return a certificate request in DER for an existing key.

    Raises:
        CallerError: it is not a P-256 key.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except UNREADABLE as error:
        raise CallerError("not a worker's key", reason="worker-identity") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CallerError("not a worker's key", reason="worker-identity")
    return _request(key)


def read_request(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a request; its sender has proved that they hold the private key.

    The size is checked before parsing, and the kind of key before its signature is verified. All
    other content of the request is ignored.

    Raises:
        CallerError: it is too large, malformed, for another kind of key, or not signed by its key.
    """
    if not 0 < len(der) <= MAX_CSR_BYTES:
        raise CallerError(f"a request has at most {MAX_CSR_BYTES} bytes", reason="csr-oversized")
    try:
        request = x509.load_der_x509_csr(der)
        public = request.public_key()
    except UNREADABLE as error:
        raise CallerError("not a certificate request", reason="csr-malformed") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise CallerError("the key of a worker is a P-256 key", reason="csr-key")
    try:
        is_signed = request.is_signature_valid
    except UNREADABLE:
        is_signed = False
    if not is_signed:
        raise CallerError("the request is not signed with its key", reason="csr-signature")
    return public


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    at: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _SKEW)
        .not_valid_after(ends)
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
