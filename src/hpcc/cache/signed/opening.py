"""Builds a remote cache from the user's settings, with the client for its kind of service."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc import __version__
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.results.results import Results
from hpcc.cache.signed.asking import Asking, AskingLimits
from hpcc.cache.signed.network import Network
from hpcc.cache.signed.remote import PREFIX, RemoteCache, RemoteCacheConfig
from hpcc.cache.signed.trust import TrustBook, place_name
from hpcc.config.paths import Paths
from hpcc.config.remote_cache import RemoteCacheSettings, RemotePlace, place_of
from hpcc.config.settings import Settings
from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.identity.cache_keys import SigningKey, load_signing_key
from hpcc.identity.keys import read_secret_file
from hpcc.ports import SystemClock
from hpcc.store.objects import Objects

if TYPE_CHECKING:
    from hpcc.rpc.reapi.foreign_service import ServiceConfig

_log: Final = logging.getLogger("hpcc.daemon.remote-cache")
# The compiles of a build, uploads, and the twelve calls of a pack.
_MAX_CALLS: Final = 32
_SERVICE_SECONDS: Final = 60.0
_MAX_PEM_BYTES: Final = 1 << 20
# Azure, "Put Blob": what kind of blob a PUT makes.
_AZURE: Final = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-08-06"}
_FIELDS: Final[Mapping[str, tuple[frozenset[str], ...]]] = {
    "s3": (
        frozenset({"access_key_id", "secret_access_key"}),
        frozenset({"access_key_id", "secret_access_key", "session_token"}),
    ),
    "azure": (frozenset({"sas"}),),
    "http": (frozenset({"user", "password"}), frozenset({"token"})),
    "reapi": (
        frozenset({"token"}),
        frozenset({"user", "password"}),
        frozenset({"certificate_file", "key_file"}),
        frozenset({"certificate_file", "key_file", "token"}),
        frozenset({"certificate_file", "key_file", "user", "password"}),
    ),
}


def open_remote_cache(
    paths: Paths, settings: Settings, results: Results, memo: FileMemo, counters: Counters
) -> RemoteCache | None:
    """Build the remote cache; None if it is off, or cannot work, which is logged and counted."""
    remote, clock = settings.cache.remote, SystemClock()
    try:
        place = place_of(remote)
        if place is None:
            return None
        signing = signing_key_or_none(remote)
        book = TrustBook(paths.cache_trust_file, remote, clock.now)
        credential(remote, place)
    except HpccError as error:
        counters.add(f"{PREFIX}.failed.config")
        _log.warning("the remote cache is off: %s", error)
        return None
    config = RemoteCacheConfig(
        namespace=remote.namespace,
        place=place_name(remote),
        signing=signing,
        read_seconds=remote.timeout_seconds,
        has_outlines=remote.outlines,
        max_unpacked_bytes=settings.cache.max_entry_bytes,
    )
    limits = AskingLimits(wait_seconds=remote.timeout_seconds + 1.0)
    return RemoteCache(
        Network(lambda: open_objects(remote, place)),
        book,
        results,
        memo,
        counters,
        Asking(limits, clock.monotonic),
        config,
    )


def check_files(settings: RemoteCacheSettings) -> None:
    """Check the files that the settings name.

    Raises:
        CallerError: see `credential` and `signing_key_or_none`.
    """
    place = place_of(settings)
    if place is not None:
        credential(settings, place)
        signing_key_or_none(settings)


def signing_key_or_none(settings: RemoteCacheSettings) -> SigningKey | None:
    """Return the key that signs here; None with `mode = "read"`.

    Raises:
        CallerError: it is missing or damaged, or others can read it.
    """
    if settings.mode != "write":
        return None
    if not settings.signing_key_file:
        raise CallerError('[cache.remote] mode = "write" needs signing_key_file', reason="config")
    return load_signing_key(Path(settings.signing_key_file))


def credential(settings: RemoteCacheSettings, place: RemotePlace) -> dict[str, str]:
    """Return the fields of the credential's file; empty without one.

    Raises:
        CallerError: others than its owner can read it, or it has other fields.
    """
    if not settings.credentials_file:
        return {}
    path = Path(settings.credentials_file)
    try:
        table = json.loads(read_secret_file(path))
    except (ValueError, RecursionError):
        table = None
    allowed = _FIELDS.get(place.kind, ())
    if not isinstance(table, dict) or frozenset(table) not in allowed:
        names = " or ".join(", ".join(sorted(fields)) for fields in allowed) or "no credential"
        raise CallerError(f"{path} must be a JSON object with {names}", reason="config")
    # A line break would end a header.
    if not all(isinstance(v, str) and v.isprintable() and v.isascii() for v in table.values()):
        raise CallerError(f"{path} must hold printable texts", reason="config")
    # RFC 7617: the service would take what follows the colon for the password.
    if ":" in table.get("user", ""):
        raise CallerError(f"{path}: a user's name must not contain a colon", reason="config")
    return table


@asynccontextmanager
async def open_objects(settings: RemoteCacheSettings, place: RemotePlace) -> AsyncIterator[Objects]:
    """Open the client for a place.

    Raises:
        CallerError: see `credential`.
        InfrastructureError: the client cannot be made.
    """
    if place.kind == "directory":
        from hpcc.store.bucket.directory import DirectoryObjects

        yield DirectoryObjects(Path(place.base), max_calls=_MAX_CALLS)
        return
    if place.kind == "reapi":
        # gRPC takes 20 MB of memory, which other places do not pay.
        from hpcc.rpc.reapi.service_objects import open_service_objects

        async with open_service_objects(
            _service(settings, place), lambda: _authorization(_secret(settings, place))
        ) as service:
            yield service
        return
    from hpcc.store.bucket.web import open_web

    secret = credential(settings, place)
    async with open_web(
        place.base,
        _headers(settings, place),
        query=secret.get("sas", "").lstrip("?"),
        ca_file=settings.ca_file,
        idle_seconds=settings.timeout_seconds,
        max_connections=_MAX_CALLS,
    ) as objects:
        yield objects


def _service(settings: RemoteCacheSettings, place: RemotePlace) -> ServiceConfig:
    """Return how to reach a REAPI service.

    Raises:
        CallerError: a file that the settings name cannot be read, or others can read the key.
        InfrastructureError: see `_secret`.
    """
    from hpcc.rpc.base.channel import ClientTls
    from hpcc.rpc.reapi.foreign_service import ServiceConfig

    secret = _secret(settings, place)
    client = None
    if "key_file" in secret:
        client = ClientTls(
            read_secret_file(Path(secret["key_file"])), _pem(secret["certificate_file"])
        )
    return ServiceConfig(
        endpoint=place.base,
        instance=place.instance,
        ca_pem=_pem(settings.ca_file) if settings.ca_file else b"",
        client=client,
        # For a large upload. What reads has `timeout_seconds` around it.
        call_seconds=_SERVICE_SECONDS,
        transfer_seconds=_SERVICE_SECONDS,
        tool_version=__version__,
    )


def _pem(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise CallerError(f"cannot read {name}: {error.strerror}", reason="config") from error


def _secret(settings: RemoteCacheSettings, place: RemotePlace) -> dict[str, str]:
    """Return the credential as it is now.

    Raises:
        InfrastructureError: its file is unusable.
    """
    try:
        return credential(settings, place)
    except CallerError as error:
        raise InfrastructureError(str(error), reason="store-config") from error


def _authorization(secret: Mapping[str, str]) -> str:
    """Return the header's value for a token, or for a name with a password (RFC 7617)."""
    if "token" in secret:
        return f"Bearer {secret['token']}"
    if "user" in secret:
        pair = f"{secret['user']}:{secret['password']}".encode()
        return "Basic " + base64.b64encode(pair).decode()
    return ""


def _headers(
    settings: RemoteCacheSettings, place: RemotePlace
) -> Callable[[str, str, bytes], Mapping[str, str]]:
    """Return what proves who asks. The file is read for each request: tokens of CI change."""

    def headers(method: str, url: str, body: bytes) -> Mapping[str, str]:
        secret = _secret(settings, place)
        if place.kind == "azure":
            return _AZURE
        if value := _authorization(secret):
            return {"authorization": value}
        if place.kind != "s3" or not secret:
            return {}
        from hpcc.store.bucket.signing import S3Credential, signed_headers

        payload, now = hashlib.sha256(body).hexdigest(), SystemClock().now()
        owner = S3Credential(**secret)
        return signed_headers(owner, method, url, payload, region=place.region, now=now)

    return headers
