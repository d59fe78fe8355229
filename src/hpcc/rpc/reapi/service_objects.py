"""Objects by key in a foreign REAPI service: its action cache names them, its CAS may hold them.

Problem: REAPI has no store of bytes by name. Its action cache maps the digest of an action to a
result, and other clients of the service use it for their own actions.

Rule: a key stands for an action whose command is `hpcc-remote-cache-entry KEY`. Command and action
are uploaded, as REAPI asks, and the object is the result's stdout: inside of the result up to
1 MiB, else as a blob that it names. So no client reads an object as the result of a compile, the
service can apply its rules to it, and who looks into the service sees what it is.

What must never happen: more than the caller's limit is received. A result names the size of its
blob, which is compared before a byte of the blob is asked for. The bytes are checked against the
blob's digest; whether they are what the caller wants is the caller's to check.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hpcc.core import Blob, CallerError, HpccError, IntegrityError, NotFoundError, PolicyError
from hpcc.reapi.foreign import encode_entry_result, entry_action, parse_foreign_result
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import (
    MAX_INLINE_ENTRY_BYTES,
    ServiceConfig,
    connect_service,
    store_error,
)


@asynccontextmanager
async def open_service_objects(
    config: ServiceConfig, authorization: Callable[[], str]
) -> AsyncIterator[ServiceObjects]:
    """Open objects in a service; nothing is sent before the first call.

    `authorization` returns the value of that header for a call, "" without one. It may change.
    """
    async with connect_service(config) as client:
        yield ServiceObjects(client, authorization)


class ServiceObjects:
    """Objects (`hpcc.store.objects`) in a foreign service. Times are the caller's to limit."""

    def __init__(self, client: ReapiClient, authorization: Callable[[], str]) -> None:
        self._client, self._authorization = client, authorization

    async def get(self, key: str, limit: int) -> bytes:
        self._client.use_authorization(self._authorization())
        _, action = entry_action(key)
        try:
            result = parse_foreign_result(await self._client.action_result(action.digest, ()))
            named = result.stdout_digest
            size = len(result.stdout) if named is None else named.size_bytes
            _check_size(size, limit)
            if named is None:
                return result.stdout
            return (await self._client.download([named]))[named].data
        except IntegrityError:
            raise
        except PolicyError as error:
            raise store_error(error) from error
        except CallerError as error:
            raise IntegrityError("the service sent another thing", reason="object-form") from error
        except HpccError as error:
            raise store_error(error) from error

    async def put(self, key: str, data: bytes) -> None:
        self._client.use_authorization(self._authorization())
        command, action = entry_action(key)
        blob = Blob.of(data) if len(data) > MAX_INLINE_ENTRY_BYTES else None
        try:
            await self._client.upload([command, action, *([blob] if blob else [])])
            result = encode_entry_result(data, blob.digest if blob else None)
            await self._client.update_action_result(action.digest, result)
        except HpccError as error:
            raise store_error(error) from error

    async def has(self, key: str) -> bool:
        self._client.use_authorization(self._authorization())
        _, action = entry_action(key)
        try:
            await self._client.action_result(action.digest, ())
        except NotFoundError:
            return False
        except HpccError as error:
            raise store_error(error) from error
        return True


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise IntegrityError(f"the object has more than {limit} bytes", reason="object-size")
