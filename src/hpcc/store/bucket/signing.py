"""Signs requests to S3-compatible services; pure.

Source: AWS, "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)",
with the whole payload in one chunk. Google's XML API takes the same with an HMAC key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credential:
    """One identity of an S3-compatible service."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def signed_headers(
    credential: S3Credential,
    method: str,
    url: str,
    payload: str,
    *,
    region: str,
    now: float,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the headers of a request, all signed. The URL has no query.

    `payload` is the SHA-256 of the body in hex, `extra` are further headers with names in lower
    case, `now` is the time in seconds since 1970. Services accept 15 minutes of difference.
    """
    parts = urlsplit(url)
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        **(extra or {}),
        "host": parts.netloc,
        "x-amz-content-sha256": payload,
        "x-amz-date": stamp,
    }
    if credential.session_token:
        headers["x-amz-security-token"] = credential.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join([method, parts.path or "/", "", lines, names, payload])
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([_ALGORITHM, stamp, scope, hashed])
    secret = f"AWS4{credential.secret_access_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={credential.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers
