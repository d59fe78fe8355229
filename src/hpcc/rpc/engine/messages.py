"""Builds and parses the messages of RWAPI (`google.devtools.remoteworkers.v1test2`)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import worker_pb2 as workers

from hpcc.core import CallerError, Digest, HpccError, InfrastructureError, IntegrityError
from hpcc.obs.text import one_line
from hpcc.reapi.digests import digest_from_proto, parse_message
from hpcc.reapi.limits import MAX_ACTION_BYTES, ReapiError
from hpcc.rpc.base.channel import MAX_MESSAGE_BYTES
from hpcc.rpc.base.errors import status_of

# An answer has a lease for each place of the bot, each with an action, and what the bot has said.
MAX_SESSION_BYTES: Final = MAX_MESSAGE_BYTES
MAX_LEASES: Final = 256
_MAX_NAME_CHARS: Final = 1024
_MAX_ID_CHARS: Final = 256
# The reasons of refusals that are about where an action may run, and not about its bytes.
_PRECONDITIONS: Final = frozenset({"platform", "unpinned-image", "foreign-image"})
# Reasons of guests that another guest would have, too: what runs is to blame.
OF_THE_ACTION: Final = frozenset(
    {"guest-memory", "guest-stdio-limit", "guest-output-limit", "guest-no-such-program"}
)
_FINAL: Final = frozenset({"compile-deadline"})
_FAILED_PRECONDITION: Final = 9
_UNAVAILABLE: Final = 14
_ACTION: Final = pb.Action.DESCRIPTOR.full_name
_DIGEST: Final = pb.Digest.DESCRIPTOR.full_name
_ANY: Final = "type.googleapis.com/"


class BotStatus(enum.Enum):
    """What a bot says of itself: only one that is OK gets leases."""

    OK = bots.BotStatus.OK
    UNHEALTHY = bots.BotStatus.UNHEALTHY
    TERMINATING = bots.BotStatus.BOT_TERMINATING


class LeaseState(enum.Enum):
    """The state of a lease. Engines set the first and the last, and may repeat the others."""

    PENDING = bots.LeaseState.PENDING
    ACTIVE = bots.LeaseState.ACTIVE
    COMPLETED = bots.LeaseState.COMPLETED
    CANCELLED = bots.LeaseState.CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLease:
    """A lease as an engine sends it: an encoded action, or the digest of one.

    `fault` says why it has neither: a client's bytes may be to blame, so other leases hold.
    `expires_at` is seconds since the epoch by the engine's clock; 0: it does not say.
    """

    id: str
    state: LeaseState
    action: bytes = b""
    digest: Digest | None = None
    fault: str = ""
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseEnd:
    """How a lease ended: an encoded `ActionResult`, or an error."""

    result: bytes = b""
    error: HpccError | None = None


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """What a bot says of a lease; without an end it is active."""

    id: str
    end: LeaseEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bot:
    """What a bot says of itself in each call. `properties` may name a property several times."""

    bot_id: str
    status: BotStatus
    capacity: int
    properties: tuple[tuple[str, str], ...]
    leases: tuple[LeaseReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSession:
    """A session as an engine answers it. `expires_at` is as in `ServerLease`."""

    name: str
    version: str
    leases: tuple[ServerLease, ...]
    expires_at: float


def session_message(bot: Bot, session: EngineSession | None) -> bots.BotSession:
    """Build the message of a bot; `session` is what the engine answered last, if it did."""
    properties = [workers.Device.Property(key=k, value=v) for k, v in bot.properties]
    message = bots.BotSession(
        name=session.name if session else "",
        bot_id=bot.bot_id,
        status=bot.status.value,
        # No version of the bot: BuildGrid keeps the session's here, and reads it as a number.
        version=session.version if session else "",
        worker=workers.Worker(
            devices=[workers.Device(handle=bot.bot_id, properties=properties)],
            # An extension of BuildGrid; without it a bot has one place.
            configs=[workers.Worker.Config(key="capacity", value=str(bot.capacity))],
        ),
    )
    for report in bot.leases:
        lease = message.leases.add(id=report.id, state=bots.LeaseState.ACTIVE)
        if report.end is not None:
            _end(lease, report.end)
    return message


def _end(lease: bots.Lease, end: LeaseEnd) -> None:
    lease.state = bots.LeaseState.COMPLETED
    if end.error is None:
        lease.result.type_url = _ANY + pb.ActionResult.DESCRIPTOR.full_name
        lease.result.value = end.result
        lease.status.SetInParent()
        return
    status = status_of(end.error)
    if end.error.reason in _PRECONDITIONS | OF_THE_ACTION:
        status.code = _FAILED_PRECONDITION
    elif isinstance(end.error, InfrastructureError) and end.error.reason not in _FINAL:
        # Another bot may succeed. Engines give a lease out again for this code.
        status.code = _UNAVAILABLE
    lease.status.MergeFromString(status.SerializeToString())


def parse_session(data: bytes) -> EngineSession:
    """Parse an engine's answer.

    Raises:
        IntegrityError: it is not a session, or breaks a limit.
    """
    try:
        message = parse_message(bots.BotSession, data, MAX_SESSION_BYTES)
    except ReapiError as error:
        raise _broken(str(error)) from error
    if len(message.leases) > MAX_LEASES:
        raise _broken(f"more than {MAX_LEASES} leases")
    leases = tuple(_lease(lease) for lease in message.leases)
    if len({lease.id for lease in leases}) != len(leases):
        raise _broken("a lease is in the session twice")
    return EngineSession(
        name=_word("the session's name", message.name, _MAX_NAME_CHARS),
        version=message.version if _is_text(message.version, _MAX_ID_CHARS) else "",
        leases=leases,
        expires_at=float(message.expire_time.seconds),
    )


def _lease(message: bots.Lease) -> ServerLease:
    try:
        state = LeaseState(message.state)
    except ValueError as error:
        raise _broken(f"a lease has the state {message.state}") from error
    action, digest, fault = b"", None, ""
    kind, value = message.payload.type_url.rpartition("/")[2], message.payload.value
    if len(value) > MAX_ACTION_BYTES:
        fault = f"its payload has {len(value)} bytes, over {MAX_ACTION_BYTES}"
    elif kind == _ACTION:
        action = value
    elif kind == _DIGEST:
        try:
            digest = digest_from_proto(parse_message(pb.Digest, value, MAX_ACTION_BYTES))
        except CallerError as error:
            fault = str(error)
    elif kind or value:
        fault = f"its payload is no action: {one_line(kind[:80])!r}"
    return ServerLease(
        id=_word("a lease's id", message.id, _MAX_ID_CHARS),
        state=state,
        action=action,
        digest=digest,
        fault=fault,
        expires_at=float(message.expire_time.seconds),
    )


def _word(what: str, text: str, most: int) -> str:
    if not text or not _is_text(text, most):
        raise _broken(f"{what} is empty, too long or not printable: {one_line(text[:80])!r}")
    return text


def _is_text(text: str, most: int) -> bool:
    return len(text) <= most and text.isprintable()


def _broken(what: str) -> IntegrityError:
    return IntegrityError(f"the engine broke RWAPI: {what}", reason="engine-protocol")


def properties_of(
    images: Sequence[str], system: str, isa: str, pool: str
) -> tuple[tuple[str, str], ...]:
    """Return the properties that a bot offers."""
    known = (*(("container-image", image) for image in images), ("OSFamily", system), ("ISA", isa))
    return (*known, ("Pool", pool)) if pool else known
