"""Encodes and parses what workers without a common store know about an action (meeting.proto).

Both directions are hostile: numbers and lengths are checked, and nothing here is believed. Results
and claims are signed, and a worker's name only helps those who have a route to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from hpcc._proto import meeting_pb2 as messages
from hpcc.core import CallerError, Digest
from hpcc.reapi.claims import ResultClaim, encode_claims, parse_claims
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord, parse_result
from hpcc.rpc.base.method import MAX_CARRIED_BYTES
from hpcc.rpc.reapi.session import Client

SERVICE: Final = "hpcc.v1.Meeting"
LOOK: Final = f"/{SERVICE}/Look"
NOTE: Final = f"/{SERVICE}/Note"
USED: Final = f"/{SERVICE}/Used"
# Of one call.
MAX_NOTES: Final = 64
MAX_USES: Final = 8
# Of an encoded result. One with longer messages is not used from a pack.
MAX_USE_BYTES: Final = 128 << 10
# In an answer. An agreement needs at most `MAX_AGREE` - 1 other voters.
MAX_NAMED: Final = 4
MAX_CARRIED: Final = 7
# As the scheduler's registry has it.
_WORKER: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Made:
    """An action, and the worker that has its result."""

    action: Digest
    worker: str


@dataclass(frozen=True, slots=True)
class Use:
    """A result that was used from a build pack: its action, and the signed result as encoded."""

    action: Digest
    result: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """What a worker without a result knows about an action; see `LookAnswer`."""

    workers: tuple[str, ...] = ()
    claims: tuple[ResultClaim, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer: a result, or what else is known."""

    record: ResultRecord | None
    known: Known = Known()


class Meeting(Protocol):
    """What a worker keeps for callers that had an action executed elsewhere."""

    async def known(self, client: Client, action: Digest) -> Known:
        """Return what is known about an action whose result this worker does not have."""
        ...

    def note(self, client: Client, made: tuple[Made, ...]) -> None:
        """Keep which workers have results."""
        ...

    async def used(self, client: Client, uses: tuple[Use, ...]) -> None:
        """Write the rows of results that came from packs.

        Raises:
            PolicyError: one does not count here, or the tenant's members have nothing in common.
            InfrastructureError: the audit trail cannot take the rows.
        """
        ...


def carried(claims: Iterable[ResultClaim]) -> bytes:
    """Encode as many of the claims as a call may carry; b"" for none."""
    kept = list[ResultClaim]()
    for claim in claims:
        if len(kept) == MAX_CARRIED or len(encode_claims([*kept, claim])) > MAX_CARRIED_BYTES:
            break
        kept.append(claim)
    return encode_claims(kept) if kept else b""


def carried_claims(data: bytes) -> tuple[ResultClaim, ...]:
    """Parse what `carried` returned, else return (). No signature is checked."""
    if not data or len(data) > MAX_CARRIED_BYTES:
        return ()
    try:
        return parse_claims(data)[:MAX_CARRIED]
    except ReapiError:
        return ()


def encode_known(known: Known) -> messages.LookAnswer:
    """Build the answer for a miss."""
    return messages.LookAnswer(workers=known.workers, claims=carried(known.claims))


def parse_look(data: bytes) -> Seen:
    """Parse a worker's answer.

    Raises:
        ReapiError: it is malformed.
    """
    try:
        answer = messages.LookAnswer.FromString(data)
    except DecodeError as error:
        raise ReapiError("not a LookAnswer") from error
    if answer.result:
        return Seen(parse_result(answer.result))
    workers = tuple(w for w in answer.workers[:MAX_NAMED] if _WORKER.fullmatch(w))
    return Seen(None, Known(workers, carried_claims(answer.claims)))


def encode_notes(instance: str, made: Iterable[Made]) -> messages.NoteRequest:
    """Build the request that notes actions."""
    request = messages.NoteRequest(instance_name=instance)
    for one in made:
        sha256 = bytes.fromhex(one.action.hash)
        request.made.add(sha256=sha256, size_bytes=one.action.size_bytes, worker=one.worker)
    return request


def parse_notes(request: messages.NoteRequest) -> tuple[Made, ...]:
    """Return the actions of a hostile request.

    Raises:
        ReapiError: there are too many, or one is malformed.
    """
    if len(request.made) > MAX_NOTES:
        raise ReapiError(f"over {MAX_NOTES} actions in one call", reason="notes")
    found = list[Made]()
    for one in request.made:
        if not _WORKER.fullmatch(one.worker):
            raise ReapiError("not a worker's name", reason="notes")
        try:
            found.append(Made(Digest(one.sha256.hex(), one.size_bytes), one.worker))
        except CallerError as error:
            raise ReapiError(str(error), reason="notes") from error
    return tuple(found)


def encode_uses(instance: str, uses: Iterable[Use]) -> messages.UsedRequest:
    """Build the request that reports uses."""
    request = messages.UsedRequest(instance_name=instance)
    for one in uses:
        sha256 = bytes.fromhex(one.action.hash)
        request.uses.add(sha256=sha256, size_bytes=one.action.size_bytes, result=one.result)
    return request


def parse_uses(request: messages.UsedRequest) -> tuple[Use, ...]:
    """Return the uses in a hostile request; their results are not parsed.

    Raises:
        ReapiError: there are too many, or one is malformed.
    """
    if len(request.uses) > MAX_USES or any(len(u.result) > MAX_USE_BYTES for u in request.uses):
        raise ReapiError(f"over {MAX_USES} uses in one call, or a result too large", reason="uses")
    try:
        return tuple(Use(Digest(u.sha256.hex(), u.size_bytes), u.result) for u in request.uses)
    except CallerError as error:
        raise ReapiError(str(error), reason="uses") from error
