"""`[cache.remote]` of hpcc.toml: where a team's signed results are, and whose signatures count.

Only the user's own file configures it. A clone can propose keys and revoke them, and cannot name a
place or a credential.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from hpcc.core import CallerError, check_endpoint
from hpcc.reapi.resource import check_instance

Mode = Literal["read", "write"]
MODES: Final = ("read", "write")
_SCHEMES: Final = "s3://, gs://, azure://, https://, reapi:// or file://"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]*(?:/|$))*")
_MAX_URL_CHARS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCacheSettings:
    """`[cache.remote]`: off unless `url` is set. Empty paths mean that there is no such file."""

    url: str = ""
    # "write" also reads, and needs `signing_key_file`.
    mode: Mode = "read"
    # Entries of one namespace are misses in every other.
    namespace: str = "default"
    # Lines of `hpcc cache keygen`. They count for every checkout; `hpcc cache trust` is for one.
    trusted_keys: tuple[str, ...] = ()
    # Key ids or whole lines.
    revoked_keys: tuple[str, ...] = ()
    # Another S3 service than Amazon's: https://host[:port].
    endpoint: str = ""
    region: str = "us-east-1"
    credentials_file: str = ""
    signing_key_file: str = ""
    ca_file: str = ""
    # A writer also stores what `hpcc explain` of others compares a miss with.
    outlines: bool = True
    # What a miss may wait for the remote cache. A usual compile takes a second.
    timeout_seconds: float = 5.0
    # In the background, once for each new commit of a checkout: `hpcc pack`.
    pull_packs: bool = True


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """Where entries are: `base` is the URL or path that names are appended to after a slash.

    `kind` says how requests are signed: "s3" (Signature Version 4), "azure" (a SAS token), "http"
    (nothing, a user's password or a token), "reapi" (the same, with or without a certificate) or
    "directory". For "reapi", `base` is an endpoint of gRPC, and the service's `instance` is apart.
    """

    kind: Literal["s3", "azure", "http", "reapi", "directory"]
    base: str
    region: str = ""
    instance: str = ""


def place_of(settings: RemoteCacheSettings) -> RemotePlace | None:
    """Return where the entries are; None if the remote cache is off.

    Raises:
        CallerError: the URL or a field is malformed, or not encrypted.
    """
    if not settings.url:
        return None
    _check_names(settings)
    scheme, host, path = _split(settings.url)
    if settings.endpoint and scheme != "s3":
        raise _wrong("endpoint", "is only for s3://")
    if scheme == "s3":
        return _s3(settings.endpoint, host, path, settings.region)
    if scheme == "gs":
        return _s3("https://storage.googleapis.com", host, path, "auto")
    if scheme == "azure":
        return _azure(host, path)
    if scheme == "file":
        if host or not path:
            raise _wrong("url", "must be file:///an/absolute/path")
        return RemotePlace("directory", "/" + path)
    if scheme in {"https", "http"}:
        check_endpoint(settings.url, secure="https", plain="http")
        return RemotePlace("http", settings.url.rstrip("/"))
    if scheme in {"reapi", "reapi+plain"}:
        check_endpoint(settings.url, secure="reapi", plain="reapi+plain")
        check_instance(path)
        protocol = "grpcs" if scheme == "reapi" else "grpc"
        return RemotePlace("reapi", f"{protocol}://{urlsplit(settings.url).netloc}", instance=path)
    raise _wrong("url", f"must begin with {_SCHEMES}")


def _check_names(settings: RemoteCacheSettings) -> None:
    if not _NAMESPACE.fullmatch(settings.namespace):
        raise _wrong("namespace", "must be of a-z, 0-9, '.', '_' and '-', 64 at most")
    if not _REGION.fullmatch(settings.region):
        raise _wrong("region", "is not the name of a region")


def _split(url: str) -> tuple[str, str, str]:
    """Return scheme, host (without port) and path of a URL that holds nothing else."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _wrong("url", "is not a URL") from error
    path = parts.path.strip("/")
    is_odd = len(url) > _MAX_URL_CHARS or parts.query or parts.fragment or "@" in parts.netloc
    if is_odd or not _PREFIX.fullmatch(path):
        raise _wrong("url", "must have no query, no password and a plain path")
    return parts.scheme, host, path


def _azure(account: str, path: str) -> RemotePlace:
    if not _ACCOUNT.fullmatch(account) or not path:
        raise _wrong("url", "must be azure://ACCOUNT/CONTAINER[/PREFIX]")
    return RemotePlace("azure", f"https://{account}.blob.core.windows.net/{path}")


def _s3(endpoint: str, bucket: str, prefix: str, region: str) -> RemotePlace:
    if not _BUCKET.fullmatch(bucket):
        raise _wrong("url", "names no bucket")
    endpoint = endpoint.rstrip("/") or f"https://s3.{region}.amazonaws.com"
    check_endpoint(endpoint, secure="https", plain="http")
    if urlsplit(endpoint).path:
        raise _wrong("endpoint", "must be https://host[:port]")
    return RemotePlace("s3", "/".join(filter(None, (endpoint, bucket, prefix))), region)


def _wrong(key: str, text: str) -> CallerError:
    return CallerError(f"[cache.remote] {key} {text}", reason="config")
