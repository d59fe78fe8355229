"""Uploads sealed segments to S3, under object lock where the bucket has it.

obstore sends no lock headers, so the two requests needed here, PUT and HEAD, are made with httpx.
Source: AWS, PutObject, object lock.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from hpcc.audit.base.canonical import GENESIS
from hpcc.audit.base.segments import (
    Seal,
    open_trail_file,
    seal_or_none,
    seal_path,
    segment_path,
)
from hpcc.audit.tree.head import MAX_CHECKPOINT_BYTES, read_tree_head
from hpcc.audit.tree.history import HEAD_NAME
from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.files import access_of, open_file, privacy_remedy
from hpcc.obs.faults import connection_fault
from hpcc.ports import Clock
from hpcc.store.bucket.signing import S3Credential, signed_headers

_log: Final = logging.getLogger(__name__)
_IDLE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 2.0
_MAX_RETRY_SECONDS: Final = 60.0
_REQUEST_SECONDS: Final = 60.0
# The slowest line that can still keep up with a busy trail.
_BYTES_PER_SECOND: Final = 128 << 10
_CHUNK: Final = 1 << 20
_DAY_SECONDS: Final = 86_400.0
_MAX_CREDENTIAL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSinkConfig:
    """A bucket. `lock_days` 0 leaves retention to the bucket's own default."""

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    lock_days: float = 0.0
    ca_file: str = ""
    access_key_id: str
    secret_access_key: str = field(repr=False)


def read_credential(path: Path) -> tuple[str, str]:
    """Read `{"access_key_id": …, "secret_access_key": …}` from a private file.

    Raises:
        CallerError: other users can read the file, or it has another content.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            access = access_of(descriptor)
            raw = file.read(_MAX_CREDENTIAL_BYTES + 1)
        table = json.loads(raw)
    except (OSError, ValueError) as error:
        raise CallerError(f"cannot read the credential in {path}") from error
    if not access.is_regular or not access.is_private:
        raise CallerError(f"others can read {path}: {privacy_remedy(path)}")
    if not isinstance(table, dict):
        raise CallerError(f"{path} must hold access_key_id and secret_access_key")
    values = [table.get(name) for name in ("access_key_id", "secret_access_key")]
    if not all(isinstance(v, str) and v for v in values):
        raise CallerError(f"{path} must hold access_key_id and secret_access_key")
    return str(values[0]), str(values[1])


class SegmentUploader:
    """Copies each sealed segment and its seal. The bucket has the records below `acknowledged`.

    Once it has all sealed ones it gets `tree.head` as well, the head that the worker signed at the
    last seal. So a copy of the bucket is compared with that, and the head never covers more.
    """

    def __init__(
        self, directory: Path, worker: str, config: ObjectSinkConfig, clock: Clock
    ) -> None:
        self._directory, self._worker = directory, worker
        self._config, self._clock = config, clock
        self.name, self.acknowledged = "bucket", 0
        self._head = GENESIS
        self._last: Seal | None = None
        # How many records the head of the tree has that the bucket got last; 0 if it has none.
        self.headed = 0

    async def run(self) -> None:
        """Copy sealed segments until cancelled; failures are retried after growing pauses."""
        delay, is_away = _RETRY_SECONDS, False
        verify = ssl.create_default_context(cafile=self._config.ca_file or None)
        async with httpx.AsyncClient(
            trust_env=False, timeout=_REQUEST_SECONDS, verify=verify, follow_redirects=False
        ) as http:
            while True:
                try:
                    await self._follow(http)
                except (HpccError, OSError) as error:
                    if not is_away:
                        _log.warning("audit segments wait for their bucket: %s", error)
                    is_away = True
                    await self._clock.sleep(delay)
                    delay = min(delay * 2, _MAX_RETRY_SECONDS)
                else:
                    delay, is_away = _RETRY_SECONDS, False
                    await self._clock.sleep(_IDLE_SECONDS)

    async def _follow(self, http: httpx.AsyncClient) -> None:
        while True:
            seal = await asyncio.to_thread(
                seal_or_none, self._directory, self.acknowledged, self._head
            )
            if seal is None:
                await self._follow_head(http)
                return
            segment = segment_path(self._directory, seal.first)
            # A segment that retention removed before the bucket was configured cannot be copied.
            if segment.is_file() and not await self._is_there(http, seal):
                await self._put(http, segment)
                # The seal comes last: if it exists, its segment is complete.
                await self._put(http, seal_path(self._directory, seal.first))
            self.acknowledged, self._head, self._last = seal.end, seal.signed.head, seal

    async def _follow_head(self, http: httpx.AsyncClient) -> None:
        """Copy the head of the tree if it is that of the last seal in the bucket.

        A later one waits: its seal is being made, and comes first.
        """
        if self._last is None or self.headed == self._last.end:
            return
        data = await asyncio.to_thread(sealed_head_or_none, self._directory, self._last)
        if data is None:
            return
        body = _Body.of_bytes(data)
        copy = await self._send(http, "HEAD", HEAD_NAME, _EMPTY)
        if copy.status_code != httpx.codes.NOT_FOUND:
            _require(copy)
        if copy.headers.get("etag", "").strip('"') != base64.b64decode(body.md5).hex():
            await self._put_body(http, HEAD_NAME, body)
        self.headed = self._last.end

    async def _is_there(self, http: httpx.AsyncClient, seal: Seal) -> bool:
        """Return whether the bucket has segment and seal; the seal is compared by MD5 (S3's ETag).

        Another writer of the bucket cannot know a seal's content before the seal is there.
        """
        path = seal_path(self._directory, seal.first)
        body = await asyncio.to_thread(_Body.of, path)
        copy = await self._send(http, "HEAD", path.name, _EMPTY)
        if copy.status_code == httpx.codes.NOT_FOUND:
            return False
        _require(copy)
        if copy.headers.get("etag", "").strip('"') != base64.b64decode(body.md5).hex():
            return False
        segment = segment_path(self._directory, seal.first)
        copy = await self._send(http, "HEAD", segment.name, _EMPTY)
        return bool(
            copy.status_code == httpx.codes.OK
            # The copy can be older than the packed segment here, or the other way round.
            and copy.headers.get("content-length")
            in {str(seal.size_bytes), str(await asyncio.to_thread(lambda: segment.stat().st_size))}
        )

    async def _put(self, http: httpx.AsyncClient, path: Path) -> None:
        await self._put_body(http, path.name, await asyncio.to_thread(_Body.of, path))

    async def _put_body(self, http: httpx.AsyncClient, name: str, body: _Body) -> None:
        headers = {"content-md5": body.md5, "content-length": str(body.size)}
        if self._config.lock_days:
            until = self._clock.now() + self._config.lock_days * _DAY_SECONDS
            headers["x-amz-object-lock-mode"] = "COMPLIANCE"
            headers["x-amz-object-lock-retain-until-date"] = datetime.fromtimestamp(
                until, UTC
            ).strftime("%Y-%m-%dT%H:%M:%SZ")
        _require(await self._send(http, "PUT", name, body, headers))

    async def _send(
        self,
        http: httpx.AsyncClient,
        method: str,
        name: str,
        body: _Body,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        config = self._config
        key = "/".join(part for part in (config.prefix, self._worker, name) if part)
        url = f"{config.endpoint}/{quote(config.bucket)}/{quote(key)}"
        owner = S3Credential(
            access_key_id=config.access_key_id, secret_access_key=config.secret_access_key
        )
        signed = signed_headers(
            owner, method, url, body.sha256, region=config.region, now=self._clock.now(),
            extra=headers,
        )  # fmt: skip
        content = body.chunks() if body.path is not None else body.data or None
        request = http.build_request(method, url, content=content, headers=signed)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS + body.size / _BYTES_PER_SECOND):
                answer = await http.send(request, stream=True)
                # The body is not read: an endless one would fill the worker's memory.
                await answer.aclose()
                return answer
        except (httpx.HTTPError, TimeoutError) as error:
            why = connection_fault(error) or type(error).__name__
            raise InfrastructureError(
                f"the audit bucket does not answer: {why}", reason="audit-sink"
            ) from error


def _require(answer: httpx.Response) -> None:
    if answer.status_code != httpx.codes.OK:
        # The body is not quoted: the server wrote it, and it may repeat the request.
        raise InfrastructureError(
            f"the audit bucket answers {answer.status_code}", reason="audit-sink"
        )


@dataclass(frozen=True, slots=True)
class _Body:
    path: Path | None
    size: int
    sha256: str
    md5: str
    data: bytes = b""

    @classmethod
    def of_bytes(cls, data: bytes) -> _Body:
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        digest = hashlib.sha256(data).hexdigest()
        return cls(None, len(data), digest, base64.b64encode(md5).decode(), data)

    @classmethod
    def of(cls, path: Path) -> _Body:
        sha, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
                md5.update(chunk)
                size += len(chunk)
        return cls(path, size, sha.hexdigest(), base64.b64encode(md5.digest()).decode())

    async def chunks(self) -> AsyncIterator[bytes]:
        assert self.path is not None
        with self.path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk


_EMPTY: Final = _Body(None, 0, hashlib.sha256(b"").hexdigest(), "")


def sealed_head_or_none(directory: Path, seal: Seal) -> bytes | None:
    """Return the head of a trail's tree if it has the records up to a seal, and no more.

    Raises:
        AuditDamagedError: another key or worker signed it, or it has another form.
        OSError: it cannot be read.
    """
    try:
        with open_trail_file(directory / HEAD_NAME) as file:
            data = file.read(MAX_CHECKPOINT_BYTES + 1)
    except FileNotFoundError:
        return None
    head = read_tree_head(seal.signed.worker, data, seal.signed.key)
    return data if (head.count, head.head) == (seal.end, seal.signed.head) else None
