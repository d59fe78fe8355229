"""Another REAPI service that runs compiles in place of a farm.

Only the user who named the service vouches for its results: they carry no signature, and how the
service isolates compiles is unknown. They have separate keys, so that a result of such a service
is never taken for a farm's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from hpcc import __version__
from hpcc.config.farm import Farm
from hpcc.core import (
    MAX_OUTPUT_BYTES,
    MAX_STDIO_BYTES,
    Blob,
    CallerError,
    Digest,
    ImageRef,
    IntegrityError,
    Isolation,
    NotFoundError,
    RemoteOutput,
    RemoteResult,
)
from hpcc.dispatch.prepared_action import PreparedAction
from hpcc.reapi.foreign import ForeignResult, parse_foreign_result
from hpcc.rpc.base.errors import MissingBlobsError
from hpcc.rpc.base.method import check_token
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import ServiceConfig, connect_service

_MAX_FILE_BYTES: Final = 1 << 20
# Every REAPI 2.x has the calls that are used here.
_API_MAJOR: Final = 2


class Upload(Protocol):
    """Uploads the blobs of an action that a service lacks."""

    async def __call__(
        self, client: ReapiClient, prepared: PreparedAction, missing: frozenset[Digest]
    ) -> None: ...


class _TokenFile:
    """A bearer token that another program renews: read again when the file has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None

    def changed_or_none(self) -> str | None:
        """Return the token if the file has changed since the last call.

        Raises:
            CallerError: it cannot be read, or others can read it.
        """
        stamp = None
        if self._path:
            # If it is missing, the read below reports why.
            with suppress(OSError):
                status = os.stat(self._path)
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp is None or stamp != self._stamp:
                token = _text(self._path, is_secret=True).strip()
                check_token(token)
                self._stamp = stamp
                return token
        return None


class EngineConnection:
    """A connection to a service that the user named. Its capabilities are asked for once."""

    def __init__(self, client: ReapiClient, image: ImageRef, token: _TokenFile) -> None:
        self._client, self.image, self._token = client, image, token
        self._lock = asyncio.Lock()
        self._is_checked = False

    async def compile(self, prepared: PreparedAction, upload: Upload) -> RemoteResult:
        """Run one action, or take its result from the service's cache.

        Raises:
            HpccError: it is unreachable, refuses, cannot execute, or answers something else.
        """
        if (token := self._token.changed_or_none()) is not None:
            self._client.use_token(token)
        await self._check()
        result, is_cached = await self._result(prepared, upload)
        if not {o.path for o in result.outputs} <= set(prepared.outputs):
            raise IntegrityError("the result has other files", reason="foreign-result")
        stdout = await self._stream(result.stdout, result.stdout_digest)
        stderr = await self._stream(result.stderr, result.stderr_digest)
        return RemoteResult(
            exit_code=result.exit_code,
            stdout=stdout,
            stderr=stderr,
            outputs=await self._outputs(result, prepared),
            is_cached=is_cached,
            isolation=Isolation.FOREIGN_UNKNOWN,
            action=str(prepared.digest),
        )

    async def _check(self) -> None:
        async with self._lock:
            if self._is_checked:
                return
            said = await self._client.capabilities()
            if not said.lowest_api[0] <= _API_MAJOR <= said.highest_api[0]:
                raise CallerError("the engine does not support REAPI 2", reason="engine-api")
            if not said.has_sha256 or not said.can_execute:
                raise CallerError(
                    "the engine does not execute actions with SHA-256", reason="engine-capabilities"
                )
            self._is_checked = True

    async def _result(self, prepared: PreparedAction, upload: Upload) -> tuple[ForeignResult, bool]:
        client, inline = self._client, tuple(prepared.outputs)
        try:
            result = parse_foreign_result(await client.action_result(prepared.digest, inline))
        except NotFoundError:
            pass
        else:
            return result, True
        await upload(client, prepared, await client.find_missing(prepared.digests))
        try:
            data, is_cached = await client.run(prepared.digest, inline)
        except MissingBlobsError as error:
            missing = await client.find_missing(prepared.digests)
            await upload(client, prepared, missing | frozenset(error.digests))
            data, is_cached = await client.run(prepared.digest, inline)
        return parse_foreign_result(data), is_cached

    async def _stream(self, raw: bytes, digest: Digest | None) -> bytes:
        size = len(raw) if digest is None else digest.size_bytes
        if size > MAX_STDIO_BYTES:
            raise IntegrityError("the result's output is too large", reason="result-size")
        return raw if digest is None else (await self._client.download([digest]))[digest].data

    async def _outputs(
        self, result: ForeignResult, prepared: PreparedAction
    ) -> tuple[RemoteOutput, ...]:
        if sum(o.digest.size_bytes for o in result.outputs) > MAX_OUTPUT_BYTES:
            raise IntegrityError("the result is too large", reason="result-size")
        rest = {o.digest for o in result.outputs if o.path not in result.inline}
        fetched = await self._client.download(rest) if rest else {}
        found = []
        for output in result.outputs:
            inline = result.inline.get(output.path)
            blob = fetched[output.digest] if inline is None else Blob.checked(output.digest, inline)
            path = prepared.outputs[output.path]
            found.append(RemoteOutput(path, blob.data, output.is_executable))
        return tuple(found)


@asynccontextmanager
async def connect_engine(farm: Farm, *, timeout_seconds: float) -> AsyncGenerator[EngineConnection]:
    """Open a connection to an engine; nothing is sent before the first compile.

    Raises:
        CallerError: its address, token file or CA file is not usable.
    """
    token = _TokenFile(farm.engine_token_file)
    config = ServiceConfig(
        endpoint=farm.engine,
        instance=farm.engine_instance,
        token=token.changed_or_none() or "",
        ca_pem=_text(farm.engine_ca_file).encode(),
        execute_seconds=timeout_seconds,
        tool_version=__version__,
    )
    async with connect_service(config) as client:
        yield EngineConnection(client, ImageRef.parse(farm.image), token)


def _text(path: str, *, is_secret: bool = False) -> str:
    """Read a small file; "" for none.

    Raises:
        CallerError: it cannot be read, or others can read a secret.
    """
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            if is_secret and os.fstat(file.fileno()).st_mode & 0o077:
                raise CallerError(f"others can read {path}: chmod 600 it", reason="engine-file")
            raw = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="engine-file") from error
    return raw.decode("utf-8", "replace")
