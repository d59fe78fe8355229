"""Signed session tokens: every scheduler of a farm can check one without a lookup.

Only schedulers write and read them, so a MAC with a shared key is enough. A client stores the text
and sends it back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from hpcc.core import PolicyError

MAX_SESSION_CHARS: Final = 4096
_PARTS: Final = 3
_TYPES: Final = {"t": str, "p": str, "v": str, "i": str, "e": float, "s": int}


class SessionTokenError(PolicyError):
    """The token is not a session of this farm's schedulers: authenticate again."""

    default_reason = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaims:
    """One login. `identity` names the policy it was checked against; `serial` grows per tenant."""

    tenant: str
    principal: str
    client_version: str
    identity: str
    expires_at: float
    serial: int


def seal_session(claims: SessionClaims, *, kid: str, secret: bytes) -> str:
    """Return the token of a session."""
    short = dict(zip(_TYPES, asdict(claims).values(), strict=True))
    body = base64.urlsafe_b64encode(json.dumps(short).encode()).decode().rstrip("=")
    return f"{kid}.{body}.{_mac(secret, kid, body)}"


def open_session_token(text: str, secrets: Mapping[str, bytes]) -> SessionClaims:
    """Return the claims of a session token; `secrets` maps key names to keys.

    Raises:
        SessionTokenError: another farm's or malformed, or its key has ended.
    """
    parts = text.split(".")
    if len(text) > MAX_SESSION_CHARS or len(parts) != _PARTS or not text.isascii():
        raise SessionTokenError("session is unknown or has ended")
    kid, body, mac = parts
    secret = secrets.get(kid)
    # Check the MAC before reading anything else.
    if secret is None or not hmac.compare_digest(_mac(secret, kid, body), mac):
        raise SessionTokenError("session is unknown or has ended")
    try:
        row = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise SessionTokenError("session is unknown or has ended") from error
    if set(row) != set(_TYPES) or any(type(row[n]) is not t for n, t in _TYPES.items()):
        raise SessionTokenError("session is of another version")
    return SessionClaims(
        tenant=row["t"], principal=row["p"], client_version=row["v"], identity=row["i"],
        expires_at=row["e"], serial=row["s"],
    )  # fmt: skip


def _mac(secret: bytes, kid: str, body: str) -> str:
    return hmac.new(secret, f"hpcc-session.{kid}.{body}".encode(), hashlib.sha256).hexdigest()
