"""What the REAPI services need of a worker: who calls, and what an authorized caller may do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from google.protobuf.message import DecodeError

from hpcc.core import (
    PRIVATE_ONLY,
    Blob,
    CallerError,
    Digest,
    HpccError,
    SharingPolicy,
    TenantId,
)
from hpcc.rpc.base.method import Call
from hpcc.rpc.reapi.explanation import Explanation

_MAX_LABEL_CHARS: Final = 128
_MAX_INJECTED: Final = 16


@dataclass(frozen=True, slots=True)
class Client:
    """The caller: credential, instance and proof as sent, and what its tool reports.

    `expected` is the caller's word for how many compiles it may send at once now; 0: it says none.
    """

    credential: str
    instance: str
    tool: str = ""
    build_id: str = ""
    injected: tuple[str, ...] = ()
    proof: str = ""
    method: str = ""
    expected: int = 0
    # What the caller accepts of colleagues' results.
    sharing: SharingPolicy = PRIVATE_ONLY
    # Encoded claims of other workers about the action. Nothing about them is checked yet.
    claims: bytes = b""
    # What `Authorizer.judge` returned for this call.
    known: object = None


@dataclass(frozen=True, slots=True)
class Running:
    """An accepted execution that has not ended; `name` is its operation name."""

    name: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an execution: an encoded `ActionResult`, or an error."""

    name: str
    result: bytes = b""
    is_cached: bool = False
    error: HpccError | None = None


class Session(Protocol):
    """What an authorized caller may do, bound to one tenant and token.

    Every method raises an `HpccError` with a reason where it refuses or fails.
    """

    @property
    def tenant(self) -> TenantId:
        """Return the tenant that the token names."""
        ...

    async def find_missing(self, digests: tuple[Digest, ...]) -> frozenset[Digest]:
        """Return those of `digests` that the tenant's store does not have."""
        ...

    async def put(self, blob: Blob) -> None:
        """Store a client's blob, within the tenant's quotas."""
        ...

    async def get(self, digest: Digest) -> Blob:
        """Return a blob of the tenant.

        Raises:
            NotFoundError: it is absent.
        """
        ...

    async def keep(self, blob: Blob) -> None:
        """Store a blob that the worker made."""
        ...

    async def tree(self, root: Digest) -> tuple[bytes, ...]:
        """Return the encoded `Directory` messages below a root, the root included."""
        ...

    async def cached_result(self, action: Digest, inline: frozenset[str]) -> bytes:
        """Return the encoded `ActionResult` of a hit, with the contents of `inline` outputs.

        Raises:
            NotFoundError: a miss.
        """
        ...

    async def explain(self, action: Digest) -> Explanation:
        """Tell why the caller's action missed, after an audit row was written.

        Raises:
            NotFoundError: there is no result of it that the caller may get.
        """
        ...

    def execute(
        self,
        action: Digest,
        inline: frozenset[str],
        *,
        skip_cache: bool,
        arrive: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Running | Finished]:
        """Run an action and yield its states; the last one is `Finished`.

        `arrive` stores the blobs that came with the request. It is called on a miss.
        """
        ...

    def wait(self, name: str) -> AsyncGenerator[Running | Finished]:
        """Join the operation `name` and yield its states.

        Raises:
            NotFoundError: the tenant has no such operation.
        """
        ...

    def cancel(self, name: str) -> None:
        """Cancel the operation `name`."""
        ...


class Authorizer(Protocol):
    """Decides whether a caller gets a session."""

    async def judge(self, call: Call) -> object:
        """Check credential and proof alone, before a byte of the caller's message is read.

        The result is the `Client.known` of the sessions that the call asks for.

        Raises:
            PolicyError: the credential is invalid.
        """
        ...

    async def session(self, client: Client) -> Session:
        """Check the credential and that its tenant has the instance name.

        Raises:
            PolicyError: the credential is invalid, or the instance is not its tenant's.
        """
        ...

    async def refused(self, client: Client, what: str) -> None:
        """Record that a caller tried `what`, which no client may do."""
        ...


def client_of(call: Call, instance: str) -> Client:
    """Return the caller. A malformed tool description is ignored: no decision depends on it."""
    tool, build = "", ""
    try:
        metadata = pb.RequestMetadata.FromString(call.tool_metadata)
        tool = f"{metadata.tool_details.tool_name} {metadata.tool_details.tool_version}".strip()
        build = metadata.tool_invocation_id or metadata.correlated_invocations_id
    except DecodeError:
        pass
    injected = call.injected.decode("utf-8", "replace").split("\0")[:_MAX_INJECTED]
    flags = tuple(_label(flag) for flag in injected if flag)
    return Client(
        call.credential,
        instance,
        _label(tool),
        _label(build),
        flags,
        call.proof,
        call.method,
        call.expected,
        _sharing(call.sharing),
        call.claims,
        call.known,
    )


def _sharing(text: str) -> SharingPolicy:
    """Return what a caller accepts. Words of a later version: nothing."""
    try:
        return SharingPolicy.parse(text) if text else PRIVATE_ONLY
    except CallerError:
        return PRIVATE_ONLY


def _label(text: str) -> str:
    return "".join(c for c in text[:_MAX_LABEL_CHARS] if c.isprintable())
