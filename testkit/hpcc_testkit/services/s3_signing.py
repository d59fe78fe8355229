"""Signs S3 requests (SigV4) that obstore does not support: buckets, policies, locks.

Source: AWS, "Authenticating Requests (AWS Signature Version 4)", single-chunk header signing.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Key:
    """One identity's credential at a test server."""

    access_key_id: str
    secret_access_key: str


def signed_headers(
    key: S3Key, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> dict[str, str]:
    """Return the headers that sign this request with the identity's credential."""
    parts = urlsplit(url)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    payload = hashlib.sha256(body).hexdigest()
    every = {
        **{name.lower(): value for name, value in (headers or {}).items()},
        "host": parts.netloc,
        "x-amz-content-sha256": payload,
        "x-amz-date": stamp,
    }
    names = ";".join(sorted(every))
    query = "&".join(
        f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, value in sorted(parse_qsl(parts.query, keep_blank_values=True))
    )
    lines = [f"{name}:{every[name].strip()}\n" for name in sorted(every)]
    request = "\n".join([method, parts.path or "/", query, "".join(lines), names, payload])
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashed])
    secret = f"AWS4{key.secret_access_key}".encode()
    for part in (stamp[:8], REGION, "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    every["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return every
