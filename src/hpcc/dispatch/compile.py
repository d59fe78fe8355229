"""One remote compile, from the daemon's request to a checked result.

The steps, in `Dispatcher.compile`:

1. Prepare: hash the input files and build the action. Its digest is the key of the result.
2. Look up: take the entry of a build pack, if the request has one that counts. Otherwise ask for
   the result at the first worker, and where else it may be.
3. Execute: take a place at a worker with room, upload what it lacks, and execute. `WorkerResults`
   merges these calls where that saves a round trip, and then step 2 is left out.
4. Check: compare the result with what was asked, and its signature with who may sign for this
   tenant, action and image. Only then are outputs downloaded and returned to the daemon.

Example: the second developer on a branch compiles `a.c`. The first compile of the branch was a
hit, so this one asks for the result before it sends anything, and gets it in one call. A developer
who edits `a.c` gets a miss, so the next compile sends the changed blobs together with the call that
executes.

Every failure is a value, a `RemoteFailure` with a stable reason: the daemon then compiles locally,
unless a policy forbids it. Only a cancel is raised. If a worker or guest is gone, or a worker has
no room, another worker makes the second attempt. A farm that does not answer closes the way to it
for a few seconds, so that not every compile waits for the same refusal.

What must never happen:

- An unchecked byte in an output. `WorkerResults` checks a result before any download, and
  `Blob.checked` each blob after it.
- A result under weaker isolation than the route promised, or for another action, image, tenant or
  principal. A cached failure is rejected too: workers never store one.
- An upload of content that is not in the action. A worker that asks for a digest the action does
  not have gets an `IntegrityError`, not a file.
- The same action sent to guest after guest that it ends (`deaths`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from hpcc.core import (
    ALL_SHARING,
    Blob,
    CallerError,
    Digest,
    HpccError,
    ImageRef,
    IntegrityError,
    Parity,
    PolicyError,
    RemoteFailure,
    RemoteOutcome,
    RemoteRequest,
    RemoteResult,
    SharingPolicy,
    Toolchain,
)
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.engine import EngineConnection
from hpcc.dispatch.farm import FarmConnection
from hpcc.dispatch.finder import ResultFinder
from hpcc.dispatch.local_slots import RunHereError, Slots, chance
from hpcc.dispatch.meeting import Trail
from hpcc.dispatch.memory.deaths import GuestDeaths
from hpcc.dispatch.memory.digests import DigestMemo, read_blob
from hpcc.dispatch.packs import InputPacks
from hpcc.dispatch.parity import effective_policy, parity_verdict
from hpcc.dispatch.prepared_action import PreparedAction, prepare_action
from hpcc.dispatch.results import WorkerResults
from hpcc.ports import Clock
from hpcc.rpc.base.channel import MAX_BATCH_BYTES
from hpcc.rpc.base.errors import (
    BusyError,
    UnauthenticatedError,
    UnavailableError,
)
from hpcc.rpc.reapi.client import ReapiClient

_log: Final = logging.getLogger(__name__)
# Another route may help: the worker or its guest is gone, or the token has expired.
_REROUTE_REASONS: Final = frozenset(
    {"unavailable", "guest-lost", "guest-lost-by-another", "draining", "not-ready"}
    | {"worker-gone", "dial"}
)
_MAY_REROUTE: Final = (UnavailableError, UnauthenticatedError, BusyError)
# How often a compile is tried on the farm.
_ATTEMPTS: Final = 2
_DOWN_SECONDS: Final = 3.0


class Dispatcher:
    """Compiles on a farm or an engine. Runs in one event loop.

    `timeout_seconds` limits one compile. `version` goes to the worker as request metadata, and so
    does the request's build; `build_id` stands for it where there is none. `parity` is the user's
    setting; a tenant's policy can make it stricter.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        timeout_seconds: float,
        version: str,
        build_id: str,
        parity: Parity = "ignore",
        sharing: SharingPolicy = ALL_SHARING,
        slots: Slots | None = None,
    ) -> None:
        self._slots = slots or Slots(clock)
        self._clock, self._timeout_seconds = clock, timeout_seconds
        self._version = version
        self._parity: Parity = parity
        self._memo = DigestMemo()
        self._packs = InputPacks()
        self._results = WorkerResults(
            clock,
            upload=self._upload,
            timeout_seconds=timeout_seconds,
            version=version,
            build_id=build_id,
            sharing=sharing,
        )
        self._deaths = GuestDeaths()
        # One thread owns the memo; hashing releases the interpreter lock anyway.
        self._files = ThreadPoolExecutor(1, thread_name_prefix="hpcc-files")
        self._finder = ResultFinder(clock, self._results)
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
                    if request.needs_exact:
                        return RemoteFailure(
                            FallbackReason.NOT_IN_IMAGE, "an engine tells no tools"
                        )
                    return await connection.compile(prepared, self._upload)
                return await self._routed(connection, request, prepared)
        except RunHereError as error:
            return error.outcome
        except TimeoutError:
            return RemoteFailure(FallbackReason.DEADLINE, "the farm took too long")
        except BusyError as error:
            if isinstance(connection, EngineConnection) or connection.is_full:
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
        """Find the result, or execute at a worker with room; once more elsewhere if that fails.

        The third attempt is the caller's: it compiles on this machine.
        """
        self._deaths.check(prepared.digest, self._clock.monotonic())
        toolchain = connection.host(request.toolchain)
        worker = await self._worker(connection)
        refusal = self._refusal(connection, request, toolchain)
        if refusal is not None:
            return refusal
        taken = await self._results.packed(connection, worker, request, prepared)
        if isinstance(taken, RemoteResult):
            return taken
        result = await self._found_or_made(connection, worker, request, prepared)
        return replace(result, pack=taken) if isinstance(result, RemoteResult) else result

    async def _found_or_made(
        self,
        connection: FarmConnection,
        first: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
    ) -> RemoteOutcome:
        """See `_routed`."""
        trail = Trail()
        attempts, failed = _ATTEMPTS, 0
        may_leave = chance(self._slots, request.may_run_here)
        try:
            found = await self._finder.find(connection, first, request, prepared, trail)
        except _MAY_REROUTE as error:
            attempts, failed = attempts - 1, first.route.generation
            self._give_up(connection, first, error)
        else:
            if found is not None:
                return found
        for attempt in range(1, attempts + 1):
            async with connection.lease(failed, may_leave) as worker:
                try:
                    result = await self._reached(connection, worker, request, prepared, trail)
                except _MAY_REROUTE as error:
                    if attempt == attempts:
                        if isinstance(error, BusyError):
                            connection.give_up(worker.route, error)
                        raise
                    self._give_up(connection, worker, error)
                    failed = worker.route.generation
                else:
                    self._finder.made(connection, worker, prepared, trail, result)
                    return result
        raise AssertionError("the last attempt returns or raises")

    def _give_up(self, connection: FarmConnection, worker: RoutedWorker, error: HpccError) -> None:
        """Drop the route of a failed attempt, so that another worker makes the next one.

        Raises:
            HpccError: `error`, if no other worker would do better.
        """
        is_infrastructure = isinstance(error, UnavailableError)
        if is_infrastructure and error.reason not in _REROUTE_REASONS:
            raise error
        if isinstance(error, BusyError) and not connection.has_others:
            raise error
        connection.give_up(worker.route, error)

    async def _reached(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        request: RemoteRequest,
        prepared: PreparedAction,
        trail: Trail,
    ) -> RemoteResult:
        try:
            async with connection.reached(worker):
                return await self._results.executed(connection, worker, request, prepared, trail)
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
        if request.needs_exact and not verdict.finding.is_alike:
            text = f"the image has not the same {request.argv[0]}, with the same headers"
            return RemoteFailure(FallbackReason.NOT_IN_IMAGE, text)
        return RemoteFailure(FallbackReason.PARITY, verdict.text) if verdict.refuses else None

    async def _worker(self, connection: FarmConnection) -> RoutedWorker:
        try:
            return await connection.worker()
        except (UnavailableError, PolicyError) as error:
            self._close(_DOWN_SECONDS, error)
            raise

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
