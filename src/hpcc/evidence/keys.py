"""Keys that the reader of evidence pins, and how they are written.

A pinned file is either one public key in PEM, which is the maker's, or lines as verifiers of
signed notes read them (https://c2sp.org/signed-note): the maker's key has the name `hpcc-evidence`,
a worker's key that of its tree, `hpcc.example/audit/NAME`. With a line of a worker every worker
needs one; without any, which key is a worker's rests on the maker's word, and the check says so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hpcc.audit.base.heads import KEY_BYTES
from hpcc.audit.tree.head import ORIGIN, origin_of
from hpcc.audit.tree.note import NoteKey
from hpcc.core import CallerError

MAKER: Final = "hpcc-evidence"
MAX_KEYS_BYTES: Final = 256 << 10
_ED25519: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class PinnedKeys:
    """Raw public keys: of makers of evidence, and of workers by their words if any are pinned."""

    makers: tuple[bytes, ...]
    workers: Mapping[str, bytes]


def worker_word(worker: str) -> str:
    """Return what stands for a worker in names of files and keys: its name, or a hash of it."""
    return origin_of(worker).removeprefix(ORIGIN)


def key_id_of(key: bytes) -> str:
    """Return the id of a raw public key in envelopes: the start of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:32]


def pem_of(key: bytes) -> bytes:
    """Return a raw public key as PEM."""
    return Ed25519PublicKey.from_public_bytes(key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def keys_text(maker: bytes, workers: Mapping[str, bytes]) -> bytes:
    """Return lines of the maker's key and of workers' keys by name."""
    keys = [NoteKey(MAKER, maker)]
    keys += (NoteKey(origin_of(name), workers[name]) for name in sorted(workers))
    return "".join(f"{key.text()}\n" for key in keys).encode()


def parse_pinned(data: bytes, what: str) -> PinnedKeys:
    """Parse a file of pinned keys.

    Raises:
        CallerError: it is too large, malformed, or has no key of a maker.
    """
    if len(data) > MAX_KEYS_BYTES:
        raise CallerError(f"{what} is too large for keys")
    if data.lstrip().startswith(b"-----BEGIN "):
        return PinnedKeys((_of_pem(data, what),), {})
    makers: list[bytes] = []
    workers: dict[str, bytes] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key = _of_line(line.strip(), what)
        if key.name == MAKER:
            makers.append(key.key)
        elif not key.name.startswith(ORIGIN):
            raise CallerError(f"{what} has a key of another kind: names begin with {ORIGIN}")
        elif workers.setdefault(key.name.removeprefix(ORIGIN), key.key) != key.key:
            raise CallerError(f"{what} has two keys of one worker")
    if not makers:
        raise CallerError(f"{what} has no key of a maker of evidence ({MAKER}+…)")
    return PinnedKeys(tuple(makers), workers)


def _of_pem(data: bytes, what: str) -> bytes:
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CallerError(f"{what} is not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CallerError(f"{what} is not an Ed25519 public key")
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _of_line(line: str, what: str) -> NoteKey:
    wrong = CallerError(f"{what} has a line that is not NAME+ID+KEY")
    name, _, rest = line.partition("+")
    _, _, text = rest.partition("+")
    try:
        raw = base64.b64decode(text, validate=True)
        key = NoteKey(name, raw[1:])
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    if raw[:1] != _ED25519 or len(raw) != KEY_BYTES + 1 or key.text() != line:
        raise wrong
    return key
