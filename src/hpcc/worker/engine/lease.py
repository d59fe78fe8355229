"""Runs one lease: from an engine's action to a result that the engine may have.

The order of the steps is the rule:

1. Refuse the lease if no audit row could be written.
2. Read action and command, and compare the platform with what this bot offers. Both, and all of the
   input tree, are bounded before they are fetched, and checked against their digests.
3. Run the action as `Runner` does, in a guest of the engine's tenant, with the same limits and
   without a network. On return its audit row is durable.
4. Only then upload the outputs, and return the result.

Example: a client cancels its build at step 3. The engine leaves the lease out of its next answer,
the task is cancelled, the guest ends with its exec, and the row says "abandoned".

What must never happen: an output or a result reaches the engine without its row; an action runs
that asks for another image or system; a result is answered from this worker's own cache, which the
engine's clients did not ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from hpcc.audit.limiter import EventLimiter
from hpcc.core import (
    Blob,
    GuestReuse,
    HpccError,
    InfrastructureError,
    Isolation,
    NotFoundError,
    TenantId,
)
from hpcc.ports import AuditLog, BlobStore, Clock, GuestLostError
from hpcc.reapi.action import parse_action
from hpcc.reapi.command import IMAGE_PROPERTY, parse_command
from hpcc.reapi.limits import MAX_ACTION_BYTES, MAX_COMMAND_BYTES, ReapiError
from hpcc.reapi.platforms import check_action_platform, check_command_platform
from hpcc.rpc.base.errors import DeadlineError, MissingBlobsError, UnavailableError
from hpcc.rpc.engine.messages import OF_THE_ACTION, LeaseEnd, ServerLease
from hpcc.rpc.engine.results import engine_result
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.engine_config import EngineConfig
from hpcc.worker.engine.transfer import EngineTransfer, store_too_small
from hpcc.worker.execute.runner import Runner
from hpcc.worker.execute.work import Work, check_outputs

_log: Final = logging.getLogger(__name__)
# After a failure the worker takes no leases for so long, and longer after each further one.
_REST_SECONDS: Final = 2.0
_MAX_RESTS: Final = 30
# What a client or the engine can cause must not keep a worker from its work.
_NO_FAILURES: Final = frozenset(
    {
        "draining",
        "lease-expired",
        "compile-deadline",
        "engine-cas",
        "engine-slow",
        # Inputs that cannot be staged: a working directory that is a file, or no room.
        "guest-agent-error",
    }
)
# Failures of a transfer that are the worker's own: its store, and its credential.
_OWN: Final = frozenset({"store-too-small", "engine-refused"})
# Refusals that say that somebody tried what it may not; others are mistakes of a build.
_EVENTS: Final = frozenset({"unpinned-image", "foreign-image"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseDeps:
    """What all leases of a bot share. `offered` are the values of its properties."""

    engine: EngineConfig
    isolation: Isolation
    reuse: GuestReuse
    offered: Mapping[str, frozenset[str]]
    runner: Runner
    audit: AuditLog
    events: EventLimiter
    clock: Clock


def _is_own(error: HpccError) -> bool:
    """Return whether an error says that this worker fails, and not what it runs, or the engine."""
    if not isinstance(error, InfrastructureError) or isinstance(error, GuestLostError):
        return False
    return error.reason not in _NO_FAILURES | OF_THE_ACTION


class LeaseRunner:
    """Runs the leases of one bot."""

    def __init__(self, deps: LeaseDeps, store: BlobStore, transfer: EngineTransfer) -> None:
        self._deps, self._store, self._transfer = deps, store, transfer
        self._tenant = TenantId(deps.engine.tenant)
        self.counts: Counter[str] = Counter()
        # Failures of this worker since a lease was completed, and when the last one was.
        self._failures, self._failed_at = 0, float("-inf")

    @property
    def is_resting(self) -> bool:
        """Whether the last lease failed by this worker's fault so lately that it takes none.

        Engines give a failed lease out again at once. A worker whose guests do not start would get
        it each time, until the engine gives up, and all others, because it is never busy.
        """
        if not self._failures:
            return False
        seconds = _REST_SECONDS * min(1 << min(self._failures - 1, 16), _MAX_RESTS)
        return self._deps.clock.monotonic() - self._failed_at < seconds

    async def run(self, lease: ServerLease) -> LeaseEnd:
        """Run a lease; every failure is an end with an error. A cancel ends what runs."""
        try:
            async with asyncio.timeout(self._seconds_of(lease)):
                end = LeaseEnd(result=await self._result(lease))
        except TimeoutError:
            self.counts["failed"] += 1
            return LeaseEnd(error=InfrastructureError("the lease expired", reason="lease-expired"))
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
            raise
        except HpccError as error:
            self.counts["failed" if isinstance(error, InfrastructureError) else "refused"] += 1
            if _is_own(error):
                self._failed()
            await self._note(lease, error)
            return LeaseEnd(error=error)
        except Exception:  # noqa: BLE001 - the root of a task: one lease's fault must not end the bot
            _log.exception("engine: a lease failed")
            self.counts["failed"] += 1
            self._failed()
            fault = InfrastructureError("the worker failed on this action", reason="internal")
            return LeaseEnd(error=fault)
        self.counts["completed"] += 1
        self._failures = 0
        return end

    def _failed(self) -> None:
        self._failures += 1
        self._failed_at = self._deps.clock.monotonic()

    async def _result(self, lease: ServerLease) -> bytes:
        deps = self._deps
        deps.audit.require_room(self._tenant.value)
        async with _in_time(deps.engine.transfer_seconds, "inputs from"):
            work = await self._work(lease)
            await self._transfer.tree(work.action.input_root)
        try:
            made = await deps.runner.run(work)
        except MissingBlobsError as error:
            # They were here a moment ago: the client has nothing to upload.
            raise store_too_small() from error
        except NotFoundError as error:  # the image: other workers may have it
            raise InfrastructureError(str(error), reason=error.reason) from error
        result, blobs = await engine_result(made.record)
        async with _in_time(deps.engine.transfer_seconds, "outputs to"):
            try:
                await self._transfer.upload(made.record.outputs, blobs)
            except NotFoundError as error:
                raise InfrastructureError(
                    "the worker's store has lost an output: raise max_store_bytes",
                    reason="store-too-small",
                ) from error
        return result

    async def _work(self, lease: ServerLease) -> Work:
        """Read action and command, and check that this bot may run them.

        Raises:
            MissingBlobsError: either is not in the engine's CAS.
            ReapiError: either breaks a rule, or asks for what this bot does not offer.
        """
        deps = self._deps
        blob = await self._action(lease)
        check_action_platform(blob.data, deps.offered)
        action = parse_action(blob.data)
        told = (await self._transfer.message(action.command, MAX_COMMAND_BYTES)).data
        check_command_platform(told, deps.offered)
        command = parse_command(told)
        images = {i.digest for i in (action.image, command.image) if i is not None}
        offered = deps.engine.image_digests
        if len(images) != 1 or not images <= offered.keys():
            raise ReapiError(
                f"platform needs exactly one {IMAGE_PROPERTY} that this worker offers: "
                + ", ".join(sorted(offered.values())),
                reason="foreign-image" if images else "platform",
            )
        return Work(
            digest=blob.digest,
            # Whether the result is cached is for the engine to say. Here nobody would ask for it.
            action=replace(action, do_not_cache=True),
            command=check_outputs(command),
            domain=TrustDomain.of(
                tenant=self._tenant,
                image=images.pop(),
                isolation=deps.isolation,
                reuse=deps.reuse,
                principal=deps.engine.principal,
            ),
            principal=deps.engine.principal,
            client=Client("", deps.engine.instance),
            client_version="",
            queued_at=deps.clock.now(),
            engine=deps.engine.name,
            lease=lease.id,
        )

    async def _action(self, lease: ServerLease) -> Blob:
        if lease.fault:
            raise ReapiError(f"the lease cannot be read: {lease.fault}")
        if lease.digest is not None:
            return await self._transfer.message(lease.digest, MAX_ACTION_BYTES)
        if not lease.action:
            raise ReapiError("the lease has no action")
        blob = Blob.of(lease.action)
        await self._store.put(blob)
        return blob

    def _seconds_of(self, lease: ServerLease) -> float | None:
        """Return how long a lease lasts; None if the engine does not say.

        Raises:
            InfrastructureError: it is over.
        """
        if not lease.expires_at:
            return None
        seconds = lease.expires_at - self._deps.clock.now()
        if seconds <= 0:
            raise InfrastructureError(
                "the lease had expired when it came: compare the clocks of engine and worker",
                reason="lease-expired",
            )
        return seconds

    async def _note(self, lease: ServerLease, error: HpccError) -> None:
        """Record a refusal that says that an action tried what it may not."""
        if error.reason in _EVENTS:
            engine = self._deps.engine.name
            fields = (("engine", engine), ("lease", lease.id))
            await self._deps.events.event(error.reason, self._tenant.value, *fields)


@asynccontextmanager
async def _in_time(seconds: float, what: str) -> AsyncGenerator[None]:
    """Bound a transfer.

    Raises:
        InfrastructureError: it took longer, or the engine's CAS failed (reason `engine-cas`).
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (UnavailableError, DeadlineError):
        raise  # nobody answers: no client's bytes can cause that
    except InfrastructureError as error:
        if error.reason in _OWN:
            raise
        raise InfrastructureError(
            f"{what} the engine's CAS: {error}", reason="engine-cas"
        ) from error
    except TimeoutError as error:
        raise InfrastructureError(
            f"{what} the engine's CAS took over {seconds:g} s (transfer_seconds of the bot)",
            reason="engine-slow",
        ) from error
