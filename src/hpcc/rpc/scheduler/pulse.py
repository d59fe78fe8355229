"""Heartbeats as one stream per worker: the scheduler's end and the worker's end.

A message on an open stream costs a fraction of a call, and the end of the stream tells each side
that the other is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import grpc

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError, HpccError
from hpcc.ports import SignedHead
from hpcc.rpc.base.errors import DeadlineError, UnavailableError, error_of_call
from hpcc.rpc.base.method import Call, Duplex
from hpcc.rpc.scheduler.api import MAX_CERTIFICATES, Beat, BeatAnswer, SchedulerBackend
from hpcc.rpc.scheduler.drain_messages import (
    order_message,
    order_of,
    seconds_of,
    state_number,
    state_of,
)
from hpcc.rpc.scheduler.fact_messages import facts_message, facts_of
from hpcc.rpc.scheduler.history_messages import mark_message, mark_of, tree_message, tree_of
from hpcc.rpc.scheduler.recent_events import noted_messages, noted_of
from hpcc.rpc.scheduler.registration_messages import generation_of, worker_id_of
from hpcc.rpc.scheduler.schedulers import Schedulers, is_away

# Limits of one stream: beats in a burst, and beats per second. Faster ones are read later.
BURST: Final = 32
BEATS_PER_SECOND: Final = 8.0
# The range of leases that a worker accepts from a scheduler.
MIN_LEASE_SECONDS: Final = 1.0
MAX_LEASE_SECONDS: Final = 300.0
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_HASH_CHARS: Final = 64
# The most running or waiting compiles of one worker. Schedulers write all leases in one statement,
# and a number that the database cannot hold would make it fail for every worker.
_MAX_LOAD: Final = 1 << 20


class Pulses:
    """The streams of all workers at one scheduler: one for each worker, limited in rate."""

    def __init__(self, backend: SchedulerBackend, idle_seconds: float) -> None:
        """A stream without a message for `idle_seconds` is ended."""
        self._backend, self._idle_seconds = backend, idle_seconds
        self._streams: dict[str, _Stream] = {}

    async def serve(self, duplex: Duplex, call: Call) -> None:
        """Answer each beat until the stream ends.

        Raises:
            HpccError: the certificate is not (or no longer) accepted, or a message is malformed.
            DeadlineError: no message came for `idle_seconds`.
            UnavailableError: the worker has opened another stream.
        """
        stream = _Stream(duplex.read, self._idle_seconds)
        try:
            async with asyncio.timeout(self._idle_seconds) as scope:
                stream.scope = scope
                await self._answer_all(stream, duplex, call)
        except TimeoutError as error:
            if stream.is_replaced:
                raise UnavailableError(
                    "the worker has opened another stream", reason="pulse-replaced"
                ) from error
            raise DeadlineError("no heartbeat for too long") from error
        finally:
            # This also runs when the call is cancelled: gRPC does that for a broken connection.
            name = stream.name
            if name and self._streams.get(name) is stream:
                del self._streams[name]
                self._backend.parted(name)

    async def _answer_all(self, stream: _Stream, duplex: Duplex, call: Call) -> None:
        told: tuple[bytes, ...] = ()
        while (request := await stream.next_or_none()) is not None:
            beat = beat_of(request)
            # Check for each message: certificates expire, and workers are revoked.
            await self._backend.admit(call.certificate, beat.worker_id)
            if not stream.name:
                stream.name = beat.worker_id
                self._take_place(stream.name, stream)
            answer = self._backend.heartbeat(beat)
            await duplex.write(
                pb.HeartbeatResponse(
                    token_keys=[
                        pb.TokenKey(kid=kid, public_key=key) for kid, key in answer.token_keys
                    ],
                    generation=answer.generation,
                    lease_seconds=answer.lease_seconds,
                    replace_result_key=answer.replace_result_key,
                    scheduler_certificates=(
                        answer.certificates if answer.certificates != told else ()
                    ),
                    drain=order_message(answer.drain),
                    audit_tree=mark_message(answer.tree),
                )
            )
            told = answer.certificates

    def _take_place(self, name: str, stream: _Stream) -> None:
        before = self._streams.get(name)
        self._streams[name] = stream
        if before is not None:
            before.replace()


class _Stream:
    """Reads one stream, limited in rate. Another stream of the worker can end it."""

    def __init__(self, read: Callable[[], Awaitable[Any]], idle_seconds: float) -> None:
        self._read, self._idle_seconds = read, idle_seconds
        # The worker's id after the first message, and the timeout that ends the stream. One
        # timeout serves all messages, which is cheaper than one for each.
        self.name = ""
        self.scope: asyncio.Timeout | None = None
        self.is_replaced = False
        self._room, self._at = float(BURST), 0.0

    async def next_or_none(self) -> Any:  # noqa: ANN401 - a message of generated code
        """Wait for the next message; return None at an orderly end."""
        await self._wait_for_room()
        if self.scope is not None and not self.is_replaced and not self.scope.expired():
            self.scope.reschedule(asyncio.get_running_loop().time() + self._idle_seconds)
        return await self._read()

    def replace(self) -> None:
        """End this stream, because another one has taken its place."""
        self.is_replaced = True
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(0)

    async def _wait_for_room(self) -> None:
        """Delay the next read of a fast sender, so that its buffers fill and not the server's."""
        now = asyncio.get_running_loop().time()
        self._room = min(self._room + (now - self._at) * BEATS_PER_SECOND, float(BURST))
        self._at = now
        if self._room < 1:
            await asyncio.sleep((1 - self._room) / BEATS_PER_SECOND)
        self._room -= 1


class Pulse:
    """A worker's stream to one scheduler. Beats are sent one after the other."""

    def __init__(self, schedulers: Schedulers) -> None:
        self._schedulers = schedulers
        self._channel, self._patience = schedulers.best()
        self._call = self._channel.stream_stream(
            "/hpcc.v1.WorkerRegistryService/Pulse",
            request_serializer=pb.HeartbeatRequest.SerializeToString,
            response_deserializer=pb.HeartbeatResponse.FromString,
        )()
        self._ended = asyncio.Event()
        self._call.add_done_callback(lambda _: self._ended.set())

    async def beat(self, beat: Beat) -> BeatAnswer:
        """Send a beat and wait for its answer.

        Raises:
            HpccError: no answer came. This stream has ended; open another.
        """
        try:
            async with asyncio.timeout(self._patience):
                answer = await self._exchange(beat_message(beat))
        except TimeoutError as error:
            self._schedulers.failed(self._channel)
            raise DeadlineError("the scheduler does not answer") from error
        except HpccError as error:
            note = self._schedulers.failed if is_away(error) else self._schedulers.answered
            note(self._channel)
            raise
        self._schedulers.answered(self._channel)
        keys = tuple((k.kid, k.public_key) for k in answer.token_keys)
        # A lease outside the range is ignored: 0 keeps the earlier one.
        is_sane = MIN_LEASE_SECONDS <= answer.lease_seconds <= MAX_LEASE_SECONDS
        lease = answer.lease_seconds if is_sane else 0.0
        return BeatAnswer(
            keys,
            answer.generation,
            lease,
            answer.replace_result_key,
            tuple(answer.scheduler_certificates)[:MAX_CERTIFICATES],
            order_of(answer),
            mark_of(answer.audit_tree) if answer.HasField("audit_tree") else None,
        )

    async def _exchange(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        try:
            with suppress(asyncio.InvalidStateError):  # the call has ended: `read` raises why
                await self._call.write(request)
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        except asyncio.CancelledError:
            # gRPC also raises this for a channel that was closed.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise UnavailableError("the channel was closed") from None
        if not isinstance(answer, pb.HeartbeatResponse):
            raise UnavailableError("the scheduler has ended the stream")
        return answer

    async def wait_ended(self) -> None:
        """Wait until the stream ends by itself. The next one tries another scheduler first."""
        await self._ended.wait()
        self._schedulers.failed(self._channel)

    def close(self) -> None:
        """End the stream."""
        self._call.cancel()


def beat_message(beat: Beat) -> pb.HeartbeatRequest:
    """Build the message of a heartbeat."""
    return pb.HeartbeatRequest(
        worker_id=beat.worker_id,
        generation=beat.generation,
        running=beat.running,
        queued=beat.queued,
        audit=_anchor_message(beat.anchor) if beat.anchor is not None else None,
        drain=state_number(beat.drain),
        drain_seconds=beat.drain_seconds,
        tree=tree_message(beat.tree),
        facts=facts_message(beat.facts),
        events=noted_messages(beat.events) if beat.events else None,
    )


def _anchor_message(head: SignedHead) -> pb.AuditAnchor:
    return pb.AuditAnchor(
        count=head.count, head=head.head, at=head.at, public_key=head.key, signature=head.signature
    )


def beat_of(request: pb.HeartbeatRequest) -> Beat:
    """Parse a heartbeat.

    Raises:
        CallerError: a field is malformed or out of range.
    """
    if max(request.running, request.queued) > _MAX_LOAD:
        raise CallerError(f"a worker runs at most {_MAX_LOAD} compiles, and as many wait")
    worker_id = worker_id_of(request.worker_id)
    return Beat(
        worker_id=worker_id,
        generation=generation_of(request.generation),
        running=request.running,
        queued=request.queued,
        anchor=_anchor(request) if request.HasField("audit") else None,
        drain=state_of(request.drain),
        drain_seconds=seconds_of(request.drain_seconds),
        tree=tree_of(request, worker_id),
        facts=facts_of(request.facts),
        events=noted_of(request.events) if request.events else (),
    )


def _anchor(request: pb.HeartbeatRequest) -> SignedHead:
    """Parse the anchor. Only lengths are checked here: the backend checks the signature."""
    audit, head = request.audit, request.audit.head
    if len(audit.public_key) > _KEY_BYTES or len(audit.signature) > _SIGNATURE_BYTES:
        raise CallerError("an anchor's key or signature is too long")
    return SignedHead(
        worker=worker_id_of(request.worker_id),
        count=audit.count,
        head=head if len(head) <= _HASH_CHARS and head.isprintable() else "",
        at=audit.at,
        key=audit.public_key,
        signature=audit.signature,
    )
