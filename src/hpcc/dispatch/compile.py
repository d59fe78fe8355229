"""One remote compile, from the daemon's request to a checked result.

The steps, in `Dispatcher.compile`:

1. Prepare: hash the input files and build the action. Its digest is the key of the result.
2. Route: get a worker from the connection's current route, or ask the scheduler for one.
3. Look up: ask the worker for the result. If it is not there, upload what the worker lacks and
   execute. `_result` merges these calls where that saves a round trip.
4. Check: compare the result with what was asked, and its signature with who may sign for this
   tenant, action and image. Only then are outputs downloaded and returned to the daemon.

Example: the second developer on a branch compiles `a.c`. The first compile of the branch was a
hit, so this one asks for the result before it sends anything, and gets it in one call. A developer
who edits `a.c` gets a miss, so the next compile sends the changed blobs together with the call that
executes.

Every failure is a value, a `RemoteFailure` with a stable reason: the daemon then compiles locally,
unless a policy forbids it. Only a cancel is raised. A worker or guest that is gone costs one new
route. A farm that does not answer closes the way to it for a few seconds, so that not every
compile waits for the same refusal.

What must never happen:

- An unchecked byte in an output. `_check` runs before any download, `Blob.checked` after it.
- A result under weaker isolation than the route promised, or for another action, image, tenant or
  principal. A cached failure is rejected too: workers never store one.
- An upload of content that is not in the action. A worker that asks for a digest the action does
  not have gets an `IntegrityError`, not a file.
- The same action sent to guest after guest that it ends (`deaths`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from hpcc.core import (
    MAX_OUTPUT_BYTES,
    Blob,
    CallerError,
    Digest,
    HpccError,
    ImageRef,
    IntegrityError,
    NotFoundError,
    Parity,
    PolicyError,
    RemoteFailure,
    RemoteOutcome,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
    Toolchain,
)
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.deaths import GuestDeaths
from hpcc.dispatch.engine import EngineConnection
from hpcc.dispatch.farm import FarmConnection, RoutedWorker
from hpcc.dispatch.memo import DigestMemo, read_blob
from hpcc.dispatch.packs import InputPacks, SentBlobs
from hpcc.dispatch.parity import effective_policy, parity_verdict
from hpcc.dispatch.prepared_action import PreparedAction, prepare_action
from hpcc.identity.results import ResultError, check_result
from hpcc.ports import Clock
from hpcc.reapi.result import ResultRecord
from hpcc.reapi.signed import ResultScope, ResultTerms
from hpcc.rpc.base.channel import MAX_BATCH_BYTES
from hpcc.rpc.base.errors import (
    BusyError,
    MissingBlobsError,
    UnauthenticatedError,
    UnavailableError,
)
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig

_log: Final = logging.getLogger(__name__)
# Another route may help: the worker or its guest is gone, or the token has expired.
_REROUTE_REASONS: Final = frozenset(
    {"unavailable", "guest-lost", "guest-lost-by-another", "draining", "not-ready"}
    | {"worker-gone", "dial"}
)
_DOWN_SECONDS: Final = 3.0


class Dispatcher:
    """Compiles on a farm or an engine. Runs in one event loop.

    `timeout_seconds` limits one compile. `version` and `build_id` go to the worker as request
    metadata. `parity` is the user's setting; a tenant's policy can make it stricter.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        timeout_seconds: float,
        version: str,
        build_id: str,
        parity: Parity = "ignore",
    ) -> None:
        self._clock, self._timeout_seconds = clock, timeout_seconds
        self._version, self._build_id = version, build_id
        self._parity: Parity = parity
        self._memo = DigestMemo()
        self._packs, self._sent = InputPacks(), SentBlobs()
        self._deaths = GuestDeaths()
        # One thread owns the memo; hashing releases the interpreter lock anyway.
        self._files = ThreadPoolExecutor(1, thread_name_prefix="hpcc-files")
        # One compile predicts the next: on a branch that others have built, most are hits.
        self._was_cached = True
        self._closed_until = 0.0
        self._closed_failure = RemoteFailure(FallbackReason.FARM_DOWN, "the farm does not answer")

    async def compile(
        self, connection: FarmConnection | EngineConnection, request: RemoteRequest
    ) -> RemoteOutcome:
        """Compile one request; every failure is a `RemoteFailure`, only a cancel is raised."""
        if self._clock.monotonic() < self._closed_until:
            return self._closed_failure
        try:
            async with asyncio.timeout(self._timeout_seconds):
                prepared = await self._prepared(request, connection.image)
                if isinstance(connection, EngineConnection):
                    return await connection.compile(prepared, self._upload)
                return await self._routed(connection, request, prepared)
        except TimeoutError:
            return RemoteFailure(FallbackReason.DEADLINE, "the farm took too long")
        except BusyError as error:
            self._close(error.retry_after_seconds, error)
            return RemoteFailure(error.reason, str(error))
        except HpccError as error:
            return RemoteFailure(error.reason, str(error))

    def close(self) -> None:
        """End the thread that reads files."""
        self._files.shutdown(cancel_futures=True)

    def _close(self, seconds: float, error: HpccError) -> None:
        """Answer with this failure for a while, instead of waiting for the same refusal again."""
        self._closed_until = self._clock.monotonic() + seconds
        self._closed_failure = RemoteFailure(error.reason, str(error))

    async def _routed(
        self, connection: FarmConnection, request: RemoteRequest, prepared: PreparedAction
    ) -> RemoteOutcome:
        self._deaths.check(prepared.digest, self._clock.monotonic())
        toolchain = connection.host(request.toolchain)
        worker = await self._worker(connection)
        refusal = self._refusal(connection, request, toolchain)
        if refusal is not None:
            return refusal
        try:
            return await self._reached(connection, worker, request, prepared)
        except (UnavailableError, UnauthenticatedError) as error:
            is_token = isinstance(error, UnauthenticatedError)
            if not is_token and error.reason not in _REROUTE_REASONS:
                raise
            worker = await connection.reroute(worker.route, error)
            return await self._reached(connection, worker, request, prepared)

    async def _reached(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
    ) -> RemoteOutcome:
        try:
            async with connection.reached(worker):
                return await self._on_worker(connection, worker, request, prepared)
        except UnavailableError as error:
            now = self._clock.monotonic()
            self._deaths.note(prepared.digest, error.reason, now)
            self._deaths.check(prepared.digest, now)
            raise

    def _refusal(
        self, connection: FarmConnection, request: RemoteRequest, toolchain: Toolchain | None
    ) -> RemoteFailure | None:
        """Refuse a compile whose compiler differs from the image's, if the policy says so.

        The daemon checks the same with the policy of the last login, so this seldom refuses. Here
        the policy is the current one.
        """
        said = connection.said
        policy = effective_policy(said, fallback="quiet", parity=self._parity)
        verdict = parity_verdict(said, policy.parity, request.argv[0], toolchain, connection.image)
        return RemoteFailure(FallbackReason.PARITY, verdict.text) if verdict.refuses else None

    async def _worker(self, connection: FarmConnection) -> RoutedWorker:
        try:
            return await connection.worker()
        except (UnavailableError, PolicyError) as error:
            self._close(_DOWN_SECONDS, error)
            raise

    async def _on_worker(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
    ) -> RemoteResult:
        config = ReapiClientConfig(
            tenant=worker.tenant,
            tool_version=request.client_version or self._version,
            build_id=self._build_id,
            injected=request.injected,
            execute_seconds=self._timeout_seconds,
        )
        client = ReapiClient(worker.channel, worker.route.token, config, prove=worker.prove)
        record, is_cached = await self._result(client, worker, prepared)
        await self._check(record, connection, worker, prepared)
        if is_cached and record.exit_code:
            raise IntegrityError(
                "a cached result of a failed compile does not count", reason="result-failed"
            )
        outputs = await _outputs(client, record, prepared.outputs)
        return RemoteResult(
            exit_code=record.exit_code,
            stdout=record.stdout,
            stderr=record.stderr,
            outputs=outputs,
            is_cached=is_cached,
            isolation=record.isolation,
            action=str(prepared.digest),
        )

    async def _check(
        self,
        record: ResultRecord,
        connection: FarmConnection,
        worker: RoutedWorker,
        prepared: PreparedAction,
    ) -> None:
        """Check a result against what was asked and who may sign it. Nothing is written before."""
        _check_record(record, worker, prepared)
        terms = _terms(worker, prepared)
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

    async def _result(
        self, client: ReapiClient, worker: RoutedWorker, prepared: PreparedAction
    ) -> tuple[ResultRecord, bool]:
        """Return the result, and whether it was cached; execute if it was not.

        The result is looked up first if the last compile's was cached, or if much would have to be
        sent. Otherwise the blobs that the worker lacks go with the call that looks the result up
        and executes.
        """
        inline = tuple(prepared.outputs)
        deltas = None if self._was_cached else self._sent.deltas(worker, prepared)
        if deltas is None:
            with suppress(NotFoundError):
                record = await client.cached_result(prepared.digest, inline)
                self._was_cached = True
                return record, True
            missing = await self._sent.unknown(client, worker, prepared)
            await self._upload(client, prepared, missing)
            self._sent.note(worker, prepared)
        try:
            record, self._was_cached = await client.execute(
                prepared.digest, inline, deltas or (), at_once=self._sent.is_brief(worker)
            )
        except MissingBlobsError as error:
            # Evicted meanwhile: execute again, with the blobs it named and what else is missing.
            self._sent.lacked(worker, deltas or (), error.digests)
            missing = await client.find_missing(prepared.digests)
            await self._upload(client, prepared, missing | frozenset(error.digests))
            record, self._was_cached = await client.execute(prepared.digest, inline)
        else:
            if deltas and not self._was_cached:
                self._sent.taken(worker, prepared)
            if client.tells_end_alone:
                self._sent.was_brief(worker)
        return record, self._was_cached

    async def _upload(
        self, client: ReapiClient, prepared: PreparedAction, missing: Iterable[Digest]
    ) -> None:
        batch: list[Blob] = []
        size = 0
        for digest in missing:
            content = prepared.content(digest)
            if content is not None:
                blob = Blob.checked(digest, content)
            elif digest in prepared.files:
                blob = await self._in_files_thread(self._read, prepared.files[digest], digest)
            else:
                raise IntegrityError("the worker asks for a foreign blob", reason="foreign-blob")
            batch.append(blob)
            size += digest.size_bytes
            if size > MAX_BATCH_BYTES:
                await client.upload(batch)
                batch, size = [], 0
        if batch:
            await client.upload(batch)

    async def _prepared(self, request: RemoteRequest, image: ImageRef) -> PreparedAction:
        shared = request.shared
        folds_case = request.folds_case
        is_here = shared is not None and shared.text is not None
        if shared and is_here and self._packs.known(shared.name, folds_case=folds_case):
            # No file has to be read. Two hand-overs between threads would cost more than the rest.
            return self._prepare(request, image)
        return await self._in_files_thread(self._prepare, request, image)

    def _prepare(self, request: RemoteRequest, image: ImageRef) -> PreparedAction:
        now_ns = int(self._clock.now() * 1e9)
        shared, pack = request.shared, None
        if shared is not None:
            pack = self._packs.of(shared.encoded, shared.name, folds_case=request.folds_case)
        return prepare_action(
            request, image, lambda path: self._memo.digest(path, now_ns), self._version, pack
        )

    def _read(self, path: str, digest: Digest) -> Blob:
        try:
            return read_blob(path, digest)
        except CallerError:
            self._memo.forget(path)
            raise

    async def _in_files_thread[**P, R](
        self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._files, lambda: call(*args, **kwargs))


def _terms(worker: RoutedWorker, prepared: PreparedAction) -> ResultTerms:
    route = worker.route
    return ResultTerms(
        scope=ResultScope(tenant=worker.tenant, action=prepared.digest, principal=route.principal),
        image=prepared.image.digest,
        minimum_isolation=route.minimum_isolation,
        reuse=route.guest_reuse,
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
