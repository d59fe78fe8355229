"""Gets the result of an action from one worker: look up, send, execute, check, fetch."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from hpcc.core import (
    MAX_OUTPUT_BYTES,
    PACK_NOT_ALLOWED,
    PACK_OTHER,
    PACK_REFUSED,
    PACK_USED,
    Blob,
    CallerError,
    Digest,
    FarmRun,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
    SharingPolicy,
)
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.farm import FarmConnection
from hpcc.dispatch.meeting import Trail
from hpcc.dispatch.packs import SentBlobs
from hpcc.dispatch.prepared_action import PreparedAction
from hpcc.identity.results import ResultError, check_result
from hpcc.ports import Clock
from hpcc.reapi.agreement import basis_of
from hpcc.reapi.claims import ResultClaim
from hpcc.reapi.packed import encode_packed, parse_packed, serves_tenant
from hpcc.reapi.result import ResultRecord, encode_result
from hpcc.reapi.signed import ResultScope, ResultTerms
from hpcc.rpc.base.errors import MissingBlobsError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.meeting import MAX_USE_BYTES, Known, Use, carried
from hpcc.rpc.reapi.service_calls import ReapiClientConfig

_log: Final = logging.getLogger(__name__)
# The limit of a call, except an execution.
_CALL_SECONDS: Final = 30.0


class WorkerResults:
    """Gets results from workers. One event loop uses it."""

    def __init__(
        self,
        clock: Clock,
        *,
        upload: Callable[[ReapiClient, PreparedAction, Iterable[Digest]], Awaitable[None]],
        timeout_seconds: float,
        version: str,
        build_id: str,
        sharing: SharingPolicy,
    ) -> None:
        """`upload` sends blobs of an action, `timeout_seconds` limits an execution.

        `build_id` stands for the build of a request that names none. `sharing` is what the user
        accepts of colleagues' results, as far as the tenant does.
        """
        self._sharing = sharing
        self._clock, self._upload, self._timeout_seconds = clock, upload, timeout_seconds
        self._version, self._build_id = version, build_id
        self._sent = SentBlobs()
        # One compile predicts the next: on a branch that others have built, most are hits.
        self.was_cached = True

    async def cached(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        *,
        seconds: float = _CALL_SECONDS,
    ) -> RemoteResult | None:
        """Look at a worker's action cache; None if it has no result."""
        client = self._client(worker, request, seconds)
        try:
            record = await client.cached_result(prepared.digest, tuple(prepared.outputs))
        except NotFoundError:
            return None
        self.was_cached = True
        return await self._result(
            connection, worker, client, prepared, record, is_cached=True,
            wants_entry=request.wants_entry,
        )  # fmt: skip

    async def packed(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
    ) -> RemoteResult | str:
        """Take the result that came from a build pack; else return why not: "", or `PACK_…`.

        It is checked as one that this worker sends, and has to serve all members of the tenant.
        """
        if not request.packed:
            return ""
        sharing = self._sharing.meet(worker.route.sharing)
        if not await connection.uses.may_use(worker, sharing):
            return PACK_NOT_ALLOWED
        try:
            tenant, action, record = parse_packed(request.packed)
            if (tenant, action) != (worker.tenant.value, str(prepared.digest)):
                return PACK_OTHER
            await self._check(record, connection, worker, prepared)
            if not serves_tenant(record, sharing):
                raise ResultError("the result is not for everybody", reason="result-private")
            outputs = _inlined(record, prepared.outputs)
            use = Use(prepared.digest, encode_result(replace(record, inline={})))
            if len(use.result) > MAX_USE_BYTES:
                return PACK_OTHER
        except (InfrastructureError, CallerError, IntegrityError) as error:
            _log.warning("an entry of a pack is not used (%s): %s", error.reason, error)
            return PACK_REFUSED
        connection.uses.note(use)
        result = _remote_result(record, prepared, outputs, is_cached=True)
        entry = request.packed if request.wants_entry else b""
        return replace(result, pack=PACK_USED, entry=entry)

    async def look(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        *,
        seconds: float,
    ) -> RemoteResult | Known:
        """Look at a worker's action cache; without a result, return what the worker knows."""
        client = self._client(worker, request, seconds)
        seen = await client.look(prepared.digest, tuple(prepared.outputs))
        if seen.record is None:
            return seen.known
        self.was_cached = True
        return await self._result(
            connection, worker, client, prepared, seen.record, is_cached=True,
            wants_entry=request.wants_entry,
        )  # fmt: skip

    async def executed(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        trail: Trail,
    ) -> RemoteResult:
        """Execute, or take the result that the worker has; `trail` has those that have none."""
        client = self._client(
            worker, request, expected=lambda: connection.expected(worker), claims=trail.claims
        )
        record, is_cached = await self._executed(connection, client, worker, prepared, trail.asked)
        if not is_cached:
            started = record.started_at
            connection.waited(worker, started - record.queued_at, record.completed_at - started)
        return await self._result(
            connection, worker, client, prepared, record, is_cached=is_cached,
            wants_entry=request.wants_entry,
        )  # fmt: skip

    def _client(
        self,
        worker: RoutedWorker,
        request: RemoteRequest,
        seconds: float = _CALL_SECONDS,
        *,
        expected: Callable[[], int] | None = None,
        claims: tuple[ResultClaim, ...] = (),
    ) -> ReapiClient:
        config = ReapiClientConfig(
            tenant=worker.tenant,
            tool_version=request.client_version or self._version,
            build_id=request.build or self._build_id,
            injected=request.injected,
            call_seconds=seconds,
            execute_seconds=self._timeout_seconds,
            expected=expected,
            sharing=self._sharing.meet(worker.route.sharing),
            claims=carried(claims),
        )
        return ReapiClient(worker.channel, worker.route.token, config, prove=worker.prove)

    async def _result(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        client: ReapiClient,
        prepared: PreparedAction,
        record: ResultRecord,
        *,
        is_cached: bool,
        wants_entry: bool = False,
    ) -> RemoteResult:
        """Check a record, and only then fetch its outputs."""
        await self._check(record, connection, worker, prepared)
        if is_cached and record.exit_code:
            raise IntegrityError(
                "a cached result of a failed compile does not count", reason="result-failed"
            )
        outputs = await _outputs(client, record, prepared.outputs)
        result = _remote_result(record, prepared, outputs, is_cached=is_cached)
        result = replace(result, ran=_run_of(record, worker, is_cached=is_cached))
        sharing = self._sharing.meet(worker.route.sharing)
        if not wants_entry or not serves_tenant(record, sharing):
            return result
        contents = {prepared.outputs[o.path]: o.path for o in record.outputs}
        whole = replace(record, inline={contents[o.path]: o.data for o in outputs})
        return replace(result, entry=encode_packed(worker.tenant, prepared.digest, whole))

    async def _check(
        self,
        record: ResultRecord,
        connection: FarmConnection,
        worker: RoutedWorker,
        prepared: PreparedAction,
    ) -> None:
        """Check a result against what was asked and who may sign it. Nothing is written before."""
        _check_record(record, worker, prepared)
        terms = _terms(worker, prepared, self._sharing)
        try:
            await check_result(record, terms, connection.result_keys, now=self._clock.now())
        except ResultError as error:
            _log.warning(
                "worker %s gave a result of action %s that does not count (%s): %s",
                worker.route.worker_id,
                prepared.digest.hash[:16],
                error.reason,
                error,
            )
            raise

    async def _executed(
        self,
        connection: FarmConnection,
        client: ReapiClient,
        worker: RoutedWorker,
        prepared: PreparedAction,
        asked: set[str],
    ) -> tuple[ResultRecord, bool]:
        """Return the result, and whether it was cached; execute if it was not.

        If much would have to be sent, the result is looked up first, unless the worker was asked
        already. Otherwise the blobs that the worker lacks go with the call that looks the result
        up and executes.
        """
        inline = tuple(prepared.outputs)
        is_asked = worker.route.worker_id in asked
        deltas = self._sent.deltas(worker, prepared)
        if deltas is None:
            if not is_asked:
                with suppress(NotFoundError):
                    record = await client.cached_result(prepared.digest, inline)
                    self.was_cached = True
                    return record, True
            missing = await self._sent.unknown(client, worker, prepared)
            await self._upload(client, prepared, missing)
            self._sent.note(worker, prepared)
        connection.opened(worker)
        try:
            record, self.was_cached = await client.execute(
                prepared.digest, inline, deltas or (), at_once=self._sent.is_brief(worker)
            )
        except MissingBlobsError as error:
            # Evicted meanwhile: execute again, with the blobs it named and what else is missing.
            self._sent.lacked(worker, deltas or (), error.digests)
            missing = await client.find_missing(prepared.digests)
            await self._upload(client, prepared, missing | frozenset(error.digests))
            record, self.was_cached = await client.execute(prepared.digest, inline)
        else:
            if deltas and not self.was_cached:
                self._sent.taken(worker, prepared)
            if client.tells_end_alone:
                self._sent.was_brief(worker)
        return record, self.was_cached


def _terms(worker: RoutedWorker, prepared: PreparedAction, sharing: SharingPolicy) -> ResultTerms:
    route = worker.route
    return ResultTerms(
        scope=ResultScope(tenant=worker.tenant, action=prepared.digest, principal=route.principal),
        image=prepared.image.digest,
        minimum_isolation=route.minimum_isolation,
        reuse=route.guest_reuse,
        # The tenant's policy and the user's demand: what both accept.
        sharing=sharing.meet(route.sharing),
    )


def _check_record(record: ResultRecord, worker: RoutedWorker, prepared: PreparedAction) -> None:
    """Check that a result matches the route and the action.

    Raises:
        IntegrityError: weaker isolation than routed, or files that were not asked for.
    """
    if record.isolation.rank < worker.route.isolation.rank:
        raise IntegrityError("the result ran under weaker isolation", reason="isolation")
    if not {o.path for o in record.outputs} <= set(prepared.outputs):
        raise IntegrityError("the result has other files", reason="foreign-result")


def _remote_result(
    record: ResultRecord,
    prepared: PreparedAction,
    outputs: tuple[RemoteOutput, ...],
    *,
    is_cached: bool,
) -> RemoteResult:
    return RemoteResult(
        exit_code=record.exit_code,
        stdout=record.stdout,
        stderr=record.stderr,
        outputs=outputs,
        is_cached=is_cached,
        isolation=record.isolation,
        action=str(prepared.digest),
        sharing=record.evidence.text if record.evidence else "",
        basis=basis_of(record).text,
    )


def _run_of(record: ResultRecord, worker: RoutedWorker, *, is_cached: bool) -> FarmRun:
    """Return who answered; the times of an execution are the worker's claim."""
    if is_cached:
        return FarmRun(worker.route.worker_id)
    return FarmRun(
        worker.route.worker_id,
        record.guest_id,
        record.started_at - record.queued_at,
        record.completed_at - record.started_at,
    )


def _inlined(record: ResultRecord, paths: Mapping[str, str]) -> tuple[RemoteOutput, ...]:
    """Return the outputs of a record that has all contents, each compared with its digest.

    Raises:
        IntegrityError: a content is missing or another one.
    """
    return tuple(
        RemoteOutput(
            paths[o.path], Blob.checked(o.digest, record.inline.get(o.path, b"")).data,
            o.is_executable,
        )
        for o in record.outputs
    )  # fmt: skip


async def _outputs(
    client: ReapiClient, record: ResultRecord, paths: Mapping[str, str]
) -> tuple[RemoteOutput, ...]:
    if sum(o.digest.size_bytes for o in record.outputs) > MAX_OUTPUT_BYTES:
        raise IntegrityError("the result is too large", reason="result-size")
    inline = {o.path: o for o in record.outputs if o.path in record.inline}
    rest = {o.digest for o in record.outputs if o.path not in inline}
    fetched = await client.download(rest) if rest else {}
    found: list[RemoteOutput] = []
    for output in record.outputs:
        if output.path in inline:
            data = Blob.checked(output.digest, record.inline[output.path]).data
        else:
            data = fetched[output.digest].data
        found.append(RemoteOutput(paths[output.path], data, output.is_executable))
    return tuple(found)
