"""Keys and secrets in files: created once with mode 0600 and kept across restarts."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from hpcc.core import CallerError, InfrastructureError
from hpcc.files import access_of, open_file, privacy_remedy
from hpcc.files.whole import Sync, whole_file, write_whole
from hpcc.identity.certificates import UNREADABLE
from hpcc.identity.tls import TlsIdentity
from hpcc.ports import Clock

MAX_KEY_FILE_BYTES: Final = 64 << 10
_SECRET_BYTES: Final = 32
# Generated certificates are pinned, not issued by a CA: they live as long as the directory.
_CERTIFICATE_DAYS: Final = 3650
_RENEW_BEFORE_DAYS: Final = 30


def key_id(key: Ed25519PublicKey) -> str:
    """Return the stable name of a public key: the start of its SHA-256."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:32]


def load_or_create_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key in `path`; the first call creates it.

    Raises:
        CallerError: the file is not such a key, or others can read it.
        InfrastructureError: it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    stored = load_or_create_secret_file(path, pem)
    loaded = _private_key(path, stored)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise CallerError(f"{path} is not an Ed25519 key: remove it to make a new one")
    return loaded


def trail_key(path: Path) -> Ed25519PrivateKey | Path:
    """Return what signs a trail: the path itself, for the process that gets this key file.

    On Windows there is no such process, and the key is in this one. The first call creates it.

    Raises:
        CallerError: the file is not such a key, or others can read it.
        InfrastructureError: it cannot be written.
    """
    return load_or_create_signing_key(path) if sys.platform == "win32" else path


def load_or_create_secret(path: Path) -> str:
    """Return the random secret in `path` (43 URL-safe characters); the first call creates it.

    Raises:
        CallerError: the file holds something else, or others than the owner can read it.
        InfrastructureError: it cannot be read or written.
    """
    fresh = secrets.token_urlsafe(_SECRET_BYTES)
    text = load_or_create_secret_file(path, fresh.encode()).decode("ascii", "replace").strip()
    if len(text) != len(fresh) or not text.replace("-", "").replace("_", "").isalnum():
        raise CallerError(f"{path} does not hold a secret of hpcc: remove it to make a new one")
    return text


def load_or_create_seal(path: Path) -> bytes:
    """Return the key in `path` that seals other keys; the first call creates it.

    An operator may have made it with another tool, such as `openssl rand -hex 32`. White space at
    its ends does not count.

    Raises:
        CallerError: it is shorter than 32 bytes, or others than the owner can read it.
        InfrastructureError: it cannot be read or written.
    """
    fresh = secrets.token_urlsafe(_SECRET_BYTES)
    seal = load_or_create_secret_file(path, fresh.encode()).strip()
    if len(seal) < _SECRET_BYTES:
        raise CallerError(
            f"{path} holds {len(seal)} bytes, fewer than {_SECRET_BYTES}: write the farm's sealing"
            " key there, or remove it if the farm has no keys yet",
            reason="keys",
        )
    return seal


def load_or_create_tls(directory: Path, name: str, *, clock: Clock) -> TlsIdentity:
    """Return the self-signed certificate `name` of `directory`, with its P-256 key.

    The key is P-256 because every TLS stack of a stock REAPI client accepts it.

    Raises:
        CallerError: the files do not belong together, or others can read the key.
        InfrastructureError: they cannot be written.
    """
    key_path, certificate_path = directory / f"{name}.key", directory / f"{name}.crt"
    fresh = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key_pem = load_or_create_secret_file(key_path, fresh)
    key = _private_key(key_path, key_pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CallerError(f"{key_path} is not a P-256 key: remove it to make a new one")
    certificate = _load_certificate_or_none(certificate_path, key, clock)
    if certificate is None:
        certificate = _self_signed(key, name, clock)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        try:
            write_whole(certificate_path, pem, sync=Sync.CONTENT, makes_parent=True)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {certificate_path}: {error.strerror}", reason="keys"
            ) from error
    return TlsIdentity(
        name=name,
        key_pem=key_pem,
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        certificate_der=certificate.public_bytes(serialization.Encoding.DER),
    )


def load_or_create_secret_file(path: Path, fresh: bytes) -> bytes:
    """Return the content of `path`; if the file is absent, create it with `fresh` first.

    Raises:
        CallerError: others than the owner can read it, or it is not an ordinary file.
        InfrastructureError: it cannot be read or written.
    """
    try:
        if not path.exists():
            # A second process that starts at the same time must get the same key.
            with whole_file(
                path, sync=Sync.CONTENT, makes_parent=True, keeps_existing=True
            ) as file:
                file.write(fresh)
        return _read_secret(path)
    except OSError as error:
        raise InfrastructureError(f"cannot use {path}: {error.strerror}", reason="keys") from error


def read_secret_file(path: Path) -> bytes:
    """Return the content of a private file. This function never creates it.

    Raises:
        CallerError: it is absent, others than the owner can read it, or it is not ordinary.
    """
    try:
        return _read_secret(path)
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="keys") from error


def _read_secret(path: Path) -> bytes:
    descriptor = open_file(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        access = access_of(descriptor)
        if not access.is_regular or not access.is_own:
            raise CallerError(f"{path} is not your own ordinary file: remove it", reason="keys")
        if not access.is_private:
            raise CallerError(
                f"others can read {path}: {privacy_remedy(path)}, or remove it for a new one",
                reason="keys",
            )
        return file.read(MAX_KEY_FILE_BYTES)


def _private_key(path: Path, pem: bytes) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except UNREADABLE as error:
        raise CallerError(
            f"{path} is not a private key: remove it to make a new one", reason="keys"
        ) from error


def _load_certificate_or_none(
    path: Path, key: ec.EllipticCurvePrivateKey, clock: Clock
) -> x509.Certificate | None:
    try:
        with path.open("rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read(MAX_KEY_FILE_BYTES))
    except (OSError, *UNREADABLE):
        return None
    renew_at = certificate.not_valid_after_utc - timedelta(days=_RENEW_BEFORE_DAYS)
    if certificate.public_key() != key.public_key() or renew_at.timestamp() < clock.now():
        return None
    return certificate


def _self_signed(key: ec.EllipticCurvePrivateKey, name: str, clock: Clock) -> x509.Certificate:
    now = datetime.fromtimestamp(clock.now(), UTC)
    # TLS finds a root by its subject: with a number in it, a peer can trust several of one name.
    number = x509.random_serial_number()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{number:x}"),
        ]
    )
    names = [
        x509.DNSName(name),
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # The certificate is its own root: the peer trusts only it, and nothing that it could sign.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
