"""REAPI v2 client of one worker or service, in core types; every failure is an `HpccError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
from google.protobuf.message import DecodeError

from hpcc.core import Blob, Digest
from hpcc.reapi.delta import Delta
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.result import ResultRecord, parse_result
from hpcc.rpc.base.errors import UnavailableError, error_of_status
from hpcc.rpc.reapi.blob_client import BlobClient
from hpcc.rpc.reapi.explain import ask
from hpcc.rpc.reapi.explanation import Explanation
from hpcc.rpc.reapi.inline_blobs import encode_execute
from hpcc.rpc.reapi.meeting import (
    LOOK,
    NOTE,
    USED,
    Made,
    Seen,
    Use,
    encode_notes,
    encode_uses,
    parse_look,
)
from hpcc.rpc.reapi.service_calls import EXECUTE, ReapiClientConfig, ServiceCalls, call_errors

_NO_METHOD: Final = "/hpcc.v1.Nothing/Ping"


async def answers(channel: grpc.aio.Channel, seconds: float) -> bool:
    """Return whether a server answers at a channel within `seconds`.

    The call names a method that no server has. The server's refusal is the answer; it needs no
    credential and writes no audit event.
    """
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_NO_METHOD)
    try:
        await call(b"", timeout=seconds)
    except grpc.aio.AioRpcError as error:
        gone = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        return error.code() not in gone
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCapabilities:
    """What a service reports about itself: versions of the API as (major, minor)."""

    has_sha256: bool
    can_execute: bool
    lowest_api: tuple[int, int]
    highest_api: tuple[int, int]


class ReapiClient:
    """Calls with one token over a channel that the caller owns.

    Every call raises an `HpccError` if the service refuses, fails or does not answer in time.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: str,
        config: ReapiClientConfig,
        *,
        prove: Callable[[str], str] | None = None,
    ) -> None:
        """`prove` returns the proof of possession for a method path; None for unbound tokens."""
        self._calls = ServiceCalls(channel, token, config, prove)
        self._blobs = BlobClient(self._calls)
        # True if the last execution that ran was answered with one message.
        self.tells_end_alone = False

    def use_token(self, token: str) -> None:
        """Send another token from the next call on. It must pass `check_token`."""
        self._calls.use_token(token)

    def use_authorization(self, value: str) -> None:
        """Send this whole value of the header `authorization` from the next call on; "": none."""
        self._calls.use_authorization(value)

    async def cached_result(self, action: Digest, inline: Sequence[str]) -> ResultRecord:
        """Look up an action in a worker's action cache.

        `inline` names outputs whose contents the result should carry.

        Raises:
            NotFoundError: a miss.
            ReapiError: the answer is not a result of hpcc.
        """
        return parse_result(await self.action_result(action, inline))

    async def look(self, action: Digest, inline: Sequence[str]) -> Seen:
        """Look up an action at a worker, and ask what the worker knows about it.

        Raises:
            CallerError: the worker is of a version that serves no `Look`.
            ReapiError: the answer is malformed.
        """
        request = self._result_request(action, inline)
        return parse_look(await self._calls.call(LOOK, request, None))

    async def note(self, made: Sequence[Made]) -> None:
        """Note which workers have the results of actions; at most `MAX_NOTES`."""
        await self._calls.call(NOTE, encode_notes(self._calls.instance, made), None)

    async def used(self, uses: Sequence[Use]) -> None:
        """Report results that came from build packs; at most `MAX_USES`, also none.

        Raises:
            CallerError: the worker is of a version that takes no such reports.
            PolicyError: a result does not count there.
        """
        await self._calls.call(USED, encode_uses(self._calls.instance, uses), None)

    async def action_result(self, action: Digest, inline: Sequence[str]) -> bytes:
        """Look up an action in any service's cache; return the `ActionResult` bytes as received.

        Raises:
            NotFoundError: a miss.
        """
        request = self._result_request(action, inline)
        data: bytes = await self._calls.unary("ActionCache/GetActionResult", request, None)
        return data

    async def update_action_result(self, action: Digest, result: bytes) -> None:
        """Write an encoded `ActionResult` to a foreign service's cache (workers refuse this).

        Raises:
            PolicyError: the service does not allow it, in general or for this token.
        """
        request = pb.UpdateActionResultRequest(
            instance_name=self._calls.instance,
            action_digest=digest_to_proto(action),
            action_result=pb.ActionResult.FromString(result),
        )
        await self._calls.unary("ActionCache/UpdateActionResult", request, pb.ActionResult)

    async def capabilities(self) -> ServiceCapabilities:
        """Fetch what the service supports."""
        answer = await self._calls.unary(
            "Capabilities/GetCapabilities",
            pb.GetCapabilitiesRequest(instance_name=self._calls.instance),
            pb.ServerCapabilities,
        )
        cache, execution = answer.cache_capabilities, answer.execution_capabilities
        low, high = answer.low_api_version, answer.high_api_version
        return ServiceCapabilities(
            has_sha256=pb.DigestFunction.SHA256 in cache.digest_functions,
            can_execute=execution.exec_enabled
            and pb.DigestFunction.SHA256
            in (*execution.digest_functions, execution.digest_function),
            lowest_api=(low.major, low.minor),
            highest_api=(high.major, high.minor),
        )

    async def explain(self, action: Digest) -> Explanation:
        """Ask a worker why an action missed; raises as `hpcc.rpc.reapi.explain:ask`."""
        return await ask(self._calls, action)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Return those of `digests` that the service does not have."""
        return await self._blobs.find_missing(digests)

    async def upload(self, blobs: Sequence[Blob]) -> None:
        """Upload blobs: small ones in batches, each one over the batch limit as a stream."""
        await self._blobs.upload(blobs)

    async def download(self, digests: Iterable[Digest]) -> dict[Digest, Blob]:
        """Fetch blobs, each checked against its digest.

        Raises:
            NotFoundError: a blob is absent.
            IntegrityError: a blob does not match its digest.
        """
        return await self._blobs.download(digests)

    async def execute(
        self,
        action: Digest,
        inline: Sequence[str],
        deltas: Sequence[Delta] = (),
        *,
        at_once: bool = False,
    ) -> tuple[ResultRecord, bool]:
        """Run the action; return its result and whether it came from the cache.

        `inline` names outputs whose contents the result should carry. `deltas` are blobs of the
        action that the worker may lack, at most `MAX_INLINE_BLOBS`. Set `at_once` if the worker is
        known to send only the end of an operation (`tells_end_alone` after an earlier call): a
        call with one message costs a third less than a stream of one.

        A cancel ends the call, and the worker counts one waiter less.
        """
        request = self._execute_request(action, inline)
        if not at_once:
            result, is_cached = await self._streamed(request, deltas)
            return parse_result(result), is_cached
        call = self._calls.channel.unary_unary(
            EXECUTE,
            request_serializer=partial(encode_execute, deltas=deltas),
            response_deserializer=ops.Operation.FromString,
        )
        seconds = self._calls.config.execute_seconds
        with call_errors(seconds):
            operation = await call(request, metadata=self._calls.metadata(EXECUTE), timeout=seconds)
        if not operation.done:
            raise UnavailableError("the worker sent more than the end")
        result, is_cached = _outcome(operation)
        return parse_result(result), is_cached

    async def run(self, action: Digest, inline: Sequence[str]) -> tuple[bytes, bool]:
        """Run the action on any service; return the `ActionResult` as received, and if cached."""
        return await self._streamed(self._execute_request(action, inline), ())

    def _result_request(self, action: Digest, inline: Sequence[str]) -> pb.GetActionResultRequest:
        return pb.GetActionResultRequest(
            instance_name=self._calls.instance,
            action_digest=digest_to_proto(action),
            inline_stdout=True,
            inline_stderr=True,
            inline_output_files=inline,
        )

    def _execute_request(self, action: Digest, inline: Sequence[str]) -> pb.ExecuteRequest:
        return pb.ExecuteRequest(
            instance_name=self._calls.instance,
            action_digest=digest_to_proto(action),
            inline_stdout=True,
            inline_stderr=True,
            inline_output_files=inline,
        )

    async def _streamed(
        self, request: pb.ExecuteRequest, deltas: Sequence[Delta]
    ) -> tuple[bytes, bool]:
        seconds = self._calls.config.execute_seconds
        call = self._calls.channel.unary_stream(
            EXECUTE,
            request_serializer=(
                partial(encode_execute, deltas=deltas)
                if self._calls.config.instance is None
                else pb.ExecuteRequest.SerializeToString
            ),
            response_deserializer=ops.Operation.FromString,
        )(request, metadata=self._calls.metadata(EXECUTE), timeout=seconds)
        count = 0
        try:
            with call_errors(seconds):
                async for operation in call:
                    count += 1
                    if operation.done:
                        result, is_cached = _outcome(operation)
                        # A hit has one message on every worker, so it shows nothing.
                        self.tells_end_alone = count == 1 and not is_cached
                        return result, is_cached
        finally:
            call.cancel()
        raise UnavailableError("the worker ended the call without a result")


def _outcome(operation: ops.Operation) -> tuple[bytes, bool]:
    response = pb.ExecuteResponse()
    try:
        is_one = operation.response.Unpack(response)
    except DecodeError:  # it has the right type's name, and other bytes
        is_one = False
    if not is_one:
        raise UnavailableError("the worker ended the operation without a response")
    if response.status.code:
        raise error_of_status(response.status)
    return response.result.SerializeToString(), response.cached_result
