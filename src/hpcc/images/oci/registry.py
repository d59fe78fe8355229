"""Pulls images from a registry by digest (OCI distribution specification 1.1)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.core import (
    CallerError,
    Digest,
    HpccError,
    ImageDigest,
    ImageRef,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
)
from hpcc.images.base.limits import MAX_MANIFEST_BYTES
from hpcc.images.oci.auth import Logins, is_loopback
from hpcc.images.oci.blobfile import LayerFile
from hpcc.images.oci.http import Endpoint, Timeouts, read_bounded
from hpcc.images.oci.manifest import MANIFEST_TYPES, Descriptor
from hpcc.images.oci.source import FetchedImage, Progress, resolve

_log = logging.getLogger(__name__)

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_URL: Final = "https://registry-1.docker.io"
# Registries and proxies throttle clients that open more connections.
_PARALLEL_DOWNLOADS: Final = 3
_ATTEMPTS: Final = 2
_RETRY_SECONDS: Final = 0.5
_MANIFEST_SECONDS: Final = 60.0
# A slower pull is given up.
_MIN_BYTES_PER_SECOND: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class OciRegistry:
    """The registry that an image's repository names, and mirrors that are tried first.

    Mirrors are base URLs. They are asked for the repository's name. Neither mirrors nor registry
    are trusted: only bytes with the right digest count.
    """

    mirrors: tuple[str, ...] = ()
    logins: Logins = field(default_factory=Logins)
    timeouts: Timeouts = field(default_factory=Timeouts)

    async def fetch(self, ref: ImageRef, blobs: Path, progress: Progress) -> FetchedImage:
        """See `ImageSource.fetch`. Whole blobs stay in `blobs` after an error, for the next try."""
        progress("resolve", 0, 0)
        async with self._open(ref.repository) as pull:
            manifest_digest, manifest, config = await resolve(ref.digest, pull, source=pull.host)
            layers = await pull.layers(manifest.layers, blobs, progress)
        return FetchedImage(
            digest=ref.digest,
            manifest_digest=manifest_digest,
            config=config,
            layers=layers,
            source=f"registry {pull.host}",
        )

    async def pin(self, repository: str, tag: str) -> ImageRef:
        """Resolve `tag` to a pinned reference, which is no longer followed by name.

        Raises:
            NotFoundError: there is no such tag.
            CallerError, InfrastructureError, IntegrityError: see `ImageSource.fetch`.
        """
        if not _TAG.fullmatch(tag):
            raise CallerError(f"not an image tag: {tag[:100]!r}", reason="image-name")
        async with self._open(repository) as pull:
            raw = await pull.manifest_by(tag)
        return ImageRef(repository, ImageDigest(f"sha256:{hashlib.sha256(raw).hexdigest()}"))

    @asynccontextmanager
    async def _open(self, repository: str) -> AsyncIterator[_Pull]:
        host, name = split_repository(repository)
        async with AsyncExitStack() as stack:
            endpoints = [
                await stack.enter_async_context(
                    Endpoint(url, login_host=login, logins=self.logins, timeouts=self.timeouts)
                )
                for url, login in self._addresses(host)
            ]
            yield _Pull(host, name, endpoints)

    def _addresses(self, host: str) -> list[tuple[str, str]]:
        own = _DOCKER_HUB_URL if host == _DOCKER_HUB else f"https://{host}"
        if is_loopback(host.rpartition(":")[0] or host):
            own = f"http://{host}"
        # A mirror gets only its own login, never the registry's.
        return [(url, url.partition("://")[2].partition("/")[0]) for url in self.mirrors] + [
            (own, host)
        ]


def split_repository(repository: str) -> tuple[str, str]:
    """Return registry host and name of a repository, by Docker's rule.

    Raises:
        CallerError: the repository has another form.
    """
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, name = first, rest
    else:
        host, name = _DOCKER_HUB, repository if slash else f"library/{repository}"
    if host in {"index.docker.io", "registry-1.docker.io"}:
        host = _DOCKER_HUB
    if not _HOST.fullmatch(host) or not _NAME.fullmatch(name):
        raise CallerError(f"not an image repository: {repository[:200]!r}", reason="image-name")
    return host, name


class _Pull:
    """One pull from endpoints, which are tried in order."""

    def __init__(self, host: str, name: str, endpoints: list[Endpoint]) -> None:
        self.host, self._name, self._endpoints = host, name, endpoints

    async def manifest(self, digest: ImageDigest) -> bytes:
        async def ask(endpoint: Endpoint) -> bytes:
            raw = await self._small(endpoint, f"manifests/{digest}")
            if hashlib.sha256(raw).hexdigest() != digest.hex:
                raise _wrong_bytes(endpoint.name, digest.value)
            return raw

        return await self._from_any(ask)

    async def manifest_by(self, tag: str) -> bytes:
        async def ask(endpoint: Endpoint) -> bytes:
            return await self._small(endpoint, f"manifests/{tag}")

        return await self._from_any(ask)

    async def config(self, descriptor: Descriptor) -> bytes:
        digest = descriptor.digest

        async def ask(endpoint: Endpoint) -> bytes:
            raw = await self._small(endpoint, f"blobs/sha256:{digest.hash}")
            if Digest.of(raw) != digest:
                raise _wrong_bytes(endpoint.name, f"sha256:{digest.hash}")
            return raw

        return await self._from_any(ask)

    async def layers(
        self, wanted: tuple[Descriptor, ...], blobs: Path, progress: Progress
    ) -> tuple[LayerFile, ...]:
        """Download the layers that are absent, a few at a time; return all, in order."""
        files = [LayerFile(blobs / d.digest.hash, d.digest) for d in wanted]
        meter = _Meter(progress, sum(f.digest.size_bytes for f in set(files)))
        slots = asyncio.Semaphore(_PARALLEL_DOWNLOADS)

        async def one(file: LayerFile) -> None:
            async with slots:
                if _has_size(file):
                    meter.add(file.digest.size_bytes)
                    return
                await self._from_any(lambda endpoint: self._download(endpoint, file, meter))

        try:
            async with asyncio.TaskGroup() as group:
                for file in sorted(set(files), key=lambda f: f.digest):
                    group.create_task(one(file))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return tuple(files)

    async def _small(self, endpoint: Endpoint, what: str) -> bytes:
        async with (
            _deadline(endpoint, _MANIFEST_SECONDS),
            endpoint.get(
                f"/v2/{self._name}/{what}", repository=self._name, accept=", ".join(MANIFEST_TYPES)
            ) as response,
        ):
            return await read_bounded(response, MAX_MANIFEST_BYTES, what="manifest")

    async def _download(self, endpoint: Endpoint, file: LayerFile, meter: _Meter) -> None:
        """Stream one blob to a temporary file, check it, and rename it."""
        digest = file.digest
        partial = file.path.with_name(f"{digest.hash}.{secrets.token_hex(4)}.part")
        seconds = _MANIFEST_SECONDS + digest.size_bytes / _MIN_BYTES_PER_SECOND
        incoming = _Incoming(endpoint.name, digest, meter)
        try:
            async with (
                _deadline(endpoint, seconds),
                endpoint.get(
                    f"/v2/{self._name}/blobs/sha256:{digest.hash}", repository=self._name
                ) as response,
            ):
                incoming.check_claim(response.headers.get("content-length"))
                with partial.open("xb") as out:
                    async for chunk in response.aiter_raw():
                        out.write(incoming.take(chunk))
                    out.flush()
                    await asyncio.to_thread(os.fsync, out.fileno())
            incoming.check_whole()
            partial.rename(file.path)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {file.path}: {error.strerror}", reason="disk"
            ) from error
        except BaseException:
            incoming.give_up()
            raise
        finally:
            partial.unlink(missing_ok=True)

    async def _from_any[T](self, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        """Return the first good answer. An endpoint that sends wrong bytes is not asked again.

        Raises:
            HpccError: no endpoint answered well. The gravest error is raised: wrong bytes before
                refused before unreachable before absent.
        """
        errors: list[HpccError] = []
        for endpoint in self._endpoints:
            for attempt in range(_ATTEMPTS):
                try:
                    return await ask(endpoint)
                except InfrastructureError as error:
                    errors.append(error)
                    if error.reason not in {"registry-unreachable", "registry-status"}:
                        break
                    if attempt + 1 < _ATTEMPTS:
                        await asyncio.sleep(_RETRY_SECONDS)
                except (IntegrityError, CallerError, NotFoundError) as error:
                    errors.append(error)
                    break
            _log.warning("image endpoint failed: %s reason=%s", endpoint.name, errors[-1].reason)
        raise min(errors, key=_gravity)


class _Meter:
    """Adds up the bytes of parallel downloads for one progress display."""

    def __init__(self, progress: Progress, total_bytes: int) -> None:
        self._progress, self._total_bytes, self._done_bytes = progress, total_bytes, 0

    def add(self, count: int) -> None:
        self._done_bytes += count
        self._progress("download", self._done_bytes, self._total_bytes)


class _Incoming:
    """One blob during its download: counts and hashes it, and refuses any byte too many."""

    def __init__(self, registry: str, digest: Digest, meter: _Meter) -> None:
        self._registry, self._digest, self._meter = registry, digest, meter
        self._sha256, self._count = hashlib.sha256(), 0

    def check_claim(self, content_length: str | None) -> None:
        if content_length not in {None, str(self._digest.size_bytes)}:
            raise self._wrong("another length")

    def take(self, chunk: bytes) -> bytes:
        self._count += len(chunk)
        self._meter.add(len(chunk))
        if self._count > self._digest.size_bytes:
            raise self._wrong("more bytes")
        self._sha256.update(chunk)
        return chunk

    def check_whole(self) -> None:
        is_whole = self._count == self._digest.size_bytes
        if not is_whole or self._sha256.hexdigest() != self._digest.hash:
            raise self._wrong("other bytes")

    def give_up(self) -> None:
        self._meter.add(-self._count)

    def _wrong(self, what: str) -> IntegrityError:
        return _wrong_bytes(self._registry, f"sha256:{self._digest.hash}", what)


def _gravity(error: HpccError) -> int:
    for rank, family in enumerate((IntegrityError, CallerError, InfrastructureError)):
        if isinstance(error, family):
            return rank
    return 3


def _has_size(file: LayerFile) -> bool:
    """Return whether the blob was downloaded before, by its size. The builder checks its digest."""
    try:
        return file.path.stat().st_size == file.digest.size_bytes
    except OSError:
        return False


def _wrong_bytes(registry: str, digest: str, what: str = "other bytes") -> IntegrityError:
    return IntegrityError(
        f"registry {registry} serves {what} for {digest}: refused", reason="digest-mismatch"
    )


@asynccontextmanager
async def _deadline(endpoint: Endpoint, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise InfrastructureError(
            f"registry {endpoint.name} did not finish an answer in {seconds:.0f} s",
            reason="registry-timeout",
        ) from error
