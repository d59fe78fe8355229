"""Signs bytes with Ed25519, as they are or in a DSSE envelope.

DSSE (https://github.com/secure-systems-lab/dsse) signs the type of the payload with the payload.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class RefusedError(Exception):
    """A file of the release is not what it must be, or a key cannot be used."""


def pre_authentication(kind: str, body: bytes) -> bytes:
    """Return the bytes that are signed for a payload of this type."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(body), body)


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return the public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the public key's DER form."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def load_private(path: Path) -> Ed25519PrivateKey:
    """Return the signing key of a PEM file that only its owner can read.

    Raises:
        RefusedError: others can read the file, or it holds no plain Ed25519 key.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise RefusedError(f"{path}: others can read this key: chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise RefusedError(
            f"{path}: no private key in PEM without a passphrase: {error}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RefusedError(f"{path}: not an Ed25519 key: openssl genpkey -algorithm ed25519")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Return the key of a PEM file.

    Raises:
        RefusedError: it holds no Ed25519 public key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise RefusedError(f"{path}: no public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RefusedError(f"{path}: not an Ed25519 key")
    return key


def seal(statement: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    """Return the envelope of a statement, as one line of JSON."""
    body = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, body))
    signed = {"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [signed],
    }
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def unseal(content: bytes, key: Ed25519PublicKey) -> dict[str, Any]:
    """Return the statement of an envelope that this key signed.

    Raises:
        RefusedError: it is not such an envelope, or no signature is this key's.
    """
    try:
        envelope = json.loads(content)
        kind = envelope["payloadType"]
        body = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(s["sig"], validate=True) for s in envelope["signatures"]]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise RefusedError(f"not a DSSE envelope: {error!r}") from error
    if kind != PAYLOAD_TYPE:
        raise RefusedError(f"the envelope holds {kind!r}, not an in-toto statement")
    if not any(is_signed(pre_authentication(kind, body), one, key) for one in signatures):
        raise RefusedError("no signature of the envelope is of this key")
    try:
        statement = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the envelope's payload is not JSON: {error!r}") from error
    if not isinstance(statement, dict):
        raise RefusedError("the envelope's payload is not an object")
    return statement


def is_signed(content: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """Return whether the key signed exactly these bytes."""
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
