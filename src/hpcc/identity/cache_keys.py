"""Keys that sign the entries of a team's remote cache, and the one line that people pass around.

A line is `hpcc-cache-key-1.ROLE.EXPIRY.KEY`: what the key may sign, the last day on which it counts
(UTC), and the 32 bytes of the Ed25519 key. The fingerprint covers the whole line. Who moves the
expiry or the role makes another fingerprint, which nobody has confirmed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hpcc.core import CallerError, InfrastructureError
from hpcc.files.whole import Sync, whole_file
from hpcc.identity.certificates import UNREADABLE
from hpcc.identity.keys import key_id, read_secret_file

# What a key may sign. A key for entries cannot sign anything that hpcc may sign later.
ROLE_ENTRIES: Final = "entries"
_ROLES: Final = (ROLE_ENTRIES,)
_LINE: Final = re.compile(
    r"hpcc-cache-key-1\.([a-z]{1,16})\.(\d{4}-\d\d-\d\d)\.([A-Za-z0-9_-]{43})"
)
KEY_ID: Final = re.compile(r"[0-9a-f]{32}")
_MAX_DAYS: Final = 3650


@dataclass(frozen=True, slots=True)
class CacheKey:
    """A public key with its role and its last day. Made by `parse_cache_key`."""

    raw: bytes
    role: str
    last_day: date

    @property
    def public(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    @property
    def kid(self) -> str:
        """The key's name in entries and in lists of revoked keys: 32 hex digits."""
        return key_id(self.public)

    @property
    def line(self) -> str:
        text = base64.urlsafe_b64encode(self.raw).decode().rstrip("=")
        return f"hpcc-cache-key-1.{self.role}.{self.last_day.isoformat()}.{text}"

    @property
    def fingerprint(self) -> str:
        """32 hex digits of the SHA-256 of the line, in groups of four."""
        digits = hashlib.sha256(self.line.encode()).hexdigest()[:32]
        return "-".join(digits[n : n + 4] for n in range(0, len(digits), 4))

    def is_expired(self, now: float) -> bool:
        """Tell whether the last day is over at `now` (seconds since 1970)."""
        return datetime.fromtimestamp(now, UTC).date() > self.last_day


def parse_cache_key(line: str) -> CacheKey:
    """Return the key of a line.

    Raises:
        CallerError: it is not such a line.
    """
    match = _LINE.fullmatch(line.strip())
    found: CacheKey | None = None
    if match is not None and match[1] in _ROLES:
        # 43 letters always decode to 32 bytes. Ed25519 refuses points when it verifies.
        raw = base64.urlsafe_b64decode(match[3] + "=")
        with suppress(ValueError):
            found = CacheKey(raw, match[1], date.fromisoformat(match[2]))
    # Another spelling of the same bytes would have another fingerprint.
    if match is None or found is None or found.line != match[0]:
        raise CallerError(
            f"not a key of a remote cache: {line[:60]!r} (`hpcc cache keygen` prints one)",
            reason="cache-key",
        )
    return found


def revoked_id(text: str) -> str:
    """Return the id of a revoked key, which is given as an id or as a line.

    Raises:
        CallerError: it is neither.
    """
    text = text.strip()
    return text if KEY_ID.fullmatch(text) else parse_cache_key(text).kid


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with its secret half."""

    key: CacheKey
    private: Ed25519PrivateKey


def make_signing_key(path: Path, *, days: int, now: float) -> SigningKey:
    """Make a key that counts for `days`, in a new file that only its owner can read.

    Raises:
        CallerError: the file exists, or `days` is not 1 to 3650.
        InfrastructureError: it cannot be written.
    """
    if not 1 <= days <= _MAX_DAYS:
        raise CallerError(f"a key counts for 1 to {_MAX_DAYS} days", reason="cache-key")
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    last_day = datetime.fromtimestamp(now, UTC).date() + timedelta(days=days)
    made = SigningKey(CacheKey(raw, ROLE_ENTRIES, last_day), private)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if path.exists():
        raise CallerError(f"{path} exists already: it is kept", reason="cache-key")
    try:
        with whole_file(path, sync=Sync.CONTENT, makes_parent=True, keeps_existing=True) as file:
            file.write(made.key.line.encode() + b"\n" + pem)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {path}: {error.strerror}", reason="cache-key"
        ) from error
    return load_signing_key(path)


def load_signing_key(path: Path) -> SigningKey:
    """Return the key in a file of `make_signing_key`.

    Raises:
        CallerError: it is absent, not such a key, or others than its owner can read it.
    """
    line, _, pem = read_secret_file(path).partition(b"\n")
    key = parse_cache_key(line.decode("ascii", "replace"))
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except UNREADABLE as error:
        raise CallerError(f"{path} holds no private key", reason="cache-key") from error
    if not isinstance(private, Ed25519PrivateKey) or key_id(private.public_key()) != key.kid:
        raise CallerError(f"the two halves of the key in {path} differ", reason="cache-key")
    return SigningKey(key, private)
