"""`ExplainService`, which workers serve beside REAPI: the server's and the client's end."""

from __future__ import annotations

from typing import Final

import grpc

from hpcc._proto import explain_pb2 as pb
from hpcc.core import CallerError, Digest
from hpcc.rpc.base.method import Call, Method
from hpcc.rpc.reapi.explanation import Explanation, explain_message, explanation_of
from hpcc.rpc.reapi.service_calls import ServiceCalls, call_errors
from hpcc.rpc.reapi.session import Authorizer, client_of

EXPLAIN_SERVICE: Final = "hpcc.v1.ExplainService"


def explain_methods(authorizer: Authorizer) -> tuple[Method, ...]:
    """Return the methods of the service."""

    async def explain(request: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
        session = await authorizer.session(client_of(call, request.instance_name))
        return explain_message(await session.explain(Digest.parse(request.action)))

    return (Method("Explain", pb.ExplainRequest, pb.ExplainResponse, unary=explain),)


async def ask(calls: ServiceCalls, action: Digest) -> Explanation:
    """Ask a worker why an action missed.

    Raises:
        NotFoundError: the worker has no result of it that we may get.
        CallerError: with the reason `explain-version`, the worker is of an older version.
        HpccError: it refused, failed or sent something else.
    """
    path = f"/{EXPLAIN_SERVICE}/Explain"
    call = calls.channel.unary_unary(
        path,
        request_serializer=pb.ExplainRequest.SerializeToString,
        response_deserializer=pb.ExplainResponse.FromString,
    )
    request = pb.ExplainRequest(instance_name=calls.instance, action=str(action))
    seconds = calls.config.call_seconds
    with call_errors(seconds):
        try:
            answer = await call(request, metadata=calls.metadata(path), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            raise CallerError("the worker does not explain", reason="explain-version") from error
    return explanation_of(answer)
