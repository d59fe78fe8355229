"""Finds the farm's result of one action, and checks now what its signed record says.

No scheduler is asked for it: an action travels to a worker, with this user's own login and the
route that a compile would get. So a user sees what a compile of this user could have been served,
and nothing of another tenant or of a colleague's private results. Each check names what it rests
on; what cannot be checked from here is `UNKNOWN`, and never counted as good.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Self

from hpcc import __version__
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import (
    ALL_SHARING,
    CallerError,
    Digest,
    GuestReuse,
    HpccError,
    ImageDigest,
    IntegrityError,
    Isolation,
    NotFoundError,
    demanded,
)
from hpcc.dispatch.calls import ended
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.farm import FarmConnection
from hpcc.dispatch.farm_files import FarmFiles
from hpcc.dispatch.login import known_certificates
from hpcc.identity.results import check_result
from hpcc.ports import Clock
from hpcc.reapi.action import ActionSpec, parse_action
from hpcc.reapi.agreement import check_sharing
from hpcc.reapi.command import CommandSpec, parse_command
from hpcc.reapi.limits import MAX_ACTION_BYTES, MAX_COMMAND_BYTES, ReapiError
from hpcc.reapi.result import ResultRecord
from hpcc.reapi.signed import ResultScope, ResultTerms
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc.rpc.scheduler.schedulers import open_schedulers

# A person waits.
_SECONDS: Final = 20.0
_MAX_WORKERS: Final = 4
_IDLE_SECONDS: Final = 60.0
SIGNATURE: Final = "Signature"
# More is not fetched to look at it.
MAX_FETCHED_BYTES: Final = 32 << 20


class CheckState(StrEnum):
    """Whether something holds."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"


class ObjectCheck(NamedTuple):
    """One check: what, whether it holds, a sentence, and what was looked at."""

    name: str
    state: CheckState
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmObject:
    """A result with its checks. `asked` is the worker that gave it.

    `spec` and `command` are None if the worker has them no longer.
    """

    tenant: str
    action: Digest
    record: ResultRecord
    asked: str
    checks: tuple[ObjectCheck, ...]
    spec: ActionSpec | None = None
    command: CommandSpec | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing fails, and the signature holds: all else is what it covers."""
        states = {check.name: check.state for check in self.checks}
        return states.get(SIGNATURE) is CheckState.HOLDS and CheckState.FAILS not in states.values()

    @property
    def sharing(self) -> str:
        """Return the class of the result: `private`, `fresh` or `agreed(N)`."""
        evidence = self.record.evidence
        return "private" if evidence is None else evidence.text

    @property
    def row(self) -> str:
        """Return the audit row of the execution; "" if the result does not name it."""
        evidence = self.record.evidence
        return "" if evidence is None else evidence.row


class FarmObjects:
    """Finds objects. It keeps its login for a minute after the last question, not longer.

    A login is one of a limited number, and holds a place among those that watch routes.
    """

    def __init__(self, paths: Paths, clock: Clock) -> None:
        self._paths, self._clock = paths, clock
        self._settings = load_settings(paths.config_file)
        self._files = FarmFiles(paths, self._settings)
        self._stack = AsyncExitStack()
        self._connected: tuple[Farm, FarmConnection] | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._busy()
        await self._close()

    async def _busy(self) -> None:
        """End the wait after which the login is given up."""
        if self._idle is not None:
            await ended(self._idle)
            self._idle = None

    async def _close_later(self) -> None:
        await self._clock.sleep(_IDLE_SECONDS)
        await self._close()

    async def object(self, action: Digest) -> FarmObject:
        """Return the result of an action, with checks that were made now.

        Raises:
            NotFoundError: no worker has a result that may serve this user.
            HpccError: there is no farm, or it refuses.
            TimeoutError: the whole took longer than a person waits.
        """
        async with self._lock:
            await self._busy()
            try:
                return await self._found(action)
            finally:
                self._idle = asyncio.Task(self._close_later(), name="object login")

    async def _found(self, action: Digest) -> FarmObject:
        async with asyncio.timeout(_SECONDS):
            connection = await self._connect()
            first = await connection.worker()
            has_others = connection.may_have_others(first)
            others = await connection.places.others(first) if has_others else []
            workers = (first, *others)
            for worker in workers[:_MAX_WORKERS]:
                try:
                    return await self._at(connection, worker, action)
                except NotFoundError:
                    continue
        nobody, more = "no worker has", ""
        if len(workers) > _MAX_WORKERS:
            nobody = f"none of the {_MAX_WORKERS} workers that were asked has"
            more = ", or another worker has it"
        raise NotFoundError(
            f"{nobody} a result of this action that may serve you: it is private to somebody"
            f" else, was evicted, or was never made{more}",
            reason="no-object",
        )

    async def _at(
        self, connection: FarmConnection, worker: RoutedWorker, action: Digest
    ) -> FarmObject:
        demand = demanded(self._settings.remote.sharing)
        config = ReapiClientConfig(
            tenant=worker.tenant, tool_version=__version__, call_seconds=_SECONDS,
            sharing=demand.meet(worker.route.sharing),
        )  # fmt: skip
        client = ReapiClient(worker.channel, worker.route.token, config, prove=worker.prove)
        record = await client.cached_result(action, ())
        spec = await _spec(client, action)
        checks = (
            await self._signature(connection, worker, action, record),
            await _bytes(client, record),
            _sharing(worker, record),
            _isolation(worker, record),
            _guest(worker, record),
            _image(connection, record),
            await _others(client, action),
            _row(record),
        )
        return FarmObject(
            tenant=worker.tenant.value, action=action, record=record, spec=spec,
            asked=worker.route.worker_id, checks=checks, command=await _command(client, spec),
        )  # fmt: skip

    async def _signature(
        self,
        connection: FarmConnection,
        worker: RoutedWorker,
        action: Digest,
        record: ResultRecord,
    ) -> ObjectCheck:
        """Check only the signature: every other rule has a separate check."""
        scope = ResultScope(tenant=worker.tenant, action=action, principal=worker.route.principal)
        signature = record.signature
        key = signature.key_id if signature is not None else "none"
        try:
            terms = ResultTerms(
                scope=scope, image=ImageDigest(record.image), reuse=GuestReuse.TENANT,
                minimum_isolation=Isolation.LOCAL_NONE, sharing=ALL_SHARING,
            )  # fmt: skip
            await check_result(record, terms, connection.result_keys, now=self._clock.now())
        except (IntegrityError, CallerError) as error:
            return ObjectCheck(SIGNATURE, CheckState.FAILS, str(error), f"key {key}")
        except HpccError as error:
            return ObjectCheck(SIGNATURE, CheckState.UNKNOWN, str(error), f"key {key}")
        said = "by a key that the scheduler lists, over tenant, action, outputs and how it was made"
        return ObjectCheck(SIGNATURE, CheckState.HOLDS, said, f"key {key}")

    async def _connect(self) -> FarmConnection:
        farm = self._files.farm()
        if farm is None:
            raise CallerError("no farm: run `hpcc login` or `hpcc up`", reason="login-none")
        if farm.engine:
            raise CallerError("an engine of hpcc.toml signs no results", reason="engine")
        if self._connected is not None and self._connected[0] == farm:
            return self._connected[1]
        await self._close()
        known = known_certificates(farm, self._paths.farm_session_file)
        schedulers = await self._stack.enter_async_context(
            open_schedulers(
                farm.scheduler, certificate_pem=known.peer.certificate_pem, name=known.peer.name,
                clock=self._clock,
            )
        )  # fmt: skip
        connection = FarmConnection(farm, schedulers, self._clock, __version__, known=known)
        self._stack.push_async_callback(connection.close)
        self._connected = farm, connection
        return connection

    async def _close(self) -> None:
        self._connected = None
        await self._stack.aclose()


async def _spec(client: ReapiClient, action: Digest) -> ActionSpec | None:
    if action.size_bytes > MAX_ACTION_BYTES:
        return None
    try:
        return parse_action((await client.download([action]))[action].data)
    except (NotFoundError, ReapiError):
        return None


async def _command(client: ReapiClient, spec: ActionSpec | None) -> CommandSpec | None:
    if spec is None or spec.command.size_bytes > MAX_COMMAND_BYTES:
        return None  # no worker executes one that is larger
    try:
        return parse_command((await client.download([spec.command]))[spec.command].data)
    except (NotFoundError, ReapiError):
        return None


async def _bytes(client: ReapiClient, record: ResultRecord) -> ObjectCheck:
    """Fetch the outputs, which compares each with its digest."""
    digests = {output.digest for output in record.outputs}
    size = sum(digest.size_bytes for digest in digests)
    detail = f"{len(digests)} of them, {size:,} bytes"
    if size > MAX_FETCHED_BYTES:
        return ObjectCheck("Bytes", CheckState.UNKNOWN, "too large to fetch for a look", detail)
    try:
        await client.download(digests)
    except IntegrityError as error:
        return ObjectCheck("Bytes", CheckState.FAILS, str(error), detail)
    except HpccError as error:
        return ObjectCheck("Bytes", CheckState.UNKNOWN, str(error), detail)
    return ObjectCheck("Bytes", CheckState.HOLDS, "the SHA-256 of each output is its name", detail)


def _sharing(worker: RoutedWorker, record: ResultRecord) -> ObjectCheck:
    evidence, accepted = record.evidence, worker.route.sharing
    if evidence is None:
        said = {
            GuestReuse.PRINCIPAL: "private: it serves the principal for whom it was made",
            GuestReuse.EXEC: "private: its guest served one compile",
            GuestReuse.TENANT: "the tenant's guests serve everybody: nothing is proved",
        }[record.reuse]
        return ObjectCheck("Class", CheckState.HOLDS, said, "private")
    try:
        check_sharing(record, accepted)
    except ReapiError as error:
        return ObjectCheck("Class", CheckState.FAILS, str(error), evidence.text)
    said = "its guest had executed nothing before" if not evidence.claims else (
        "guests of so many voters gave the same"
    )  # fmt: skip
    return ObjectCheck("Class", CheckState.HOLDS, said, evidence.text)


def _isolation(worker: RoutedWorker, record: ResultRecord) -> ObjectCheck:
    least = worker.route.minimum_isolation
    is_enough = record.isolation.rank >= least.rank
    state = CheckState.HOLDS if is_enough else CheckState.FAILS
    said = "at least the tenant's minimum" if is_enough else "weaker than the tenant's minimum"
    return ObjectCheck("Isolation", state, said, f"{record.isolation.value}; {least.value}")


def _guest(worker: RoutedWorker, record: ResultRecord) -> ObjectCheck:
    before, reuse = record.guest_execs_before, record.reuse
    is_strict = reuse.stricter(worker.route.guest_reuse) is reuse
    state = CheckState.HOLDS if is_strict else CheckState.FAILS
    said = f"had executed {before:,} before; reuse {reuse.value}"
    if not is_strict:
        said += f", and the tenant wants {worker.route.guest_reuse.value}"
    return ObjectCheck("Guest", state, said, record.guest_id)


def _image(connection: FarmConnection, record: ResultRecord) -> ObjectCheck:
    is_same = record.image == connection.image.digest.value
    said = "the image of your login" if is_same else "another image than that of your login"
    state = CheckState.HOLDS if is_same else CheckState.FAILS
    return ObjectCheck("Toolchain", state, said, record.image)


async def _others(client: ReapiClient, action: Digest) -> ObjectCheck:
    """Ask whether other executions gave another result."""
    try:
        found = await client.explain(action)
    except HpccError as error:
        return ObjectCheck("Other executions", CheckState.UNKNOWN, str(error))
    if found.difference is None:
        said = "this worker knows none that gave another result"
        return ObjectCheck("Other executions", CheckState.HOLDS, said)
    difference = found.difference
    said = f"some gave another result ({difference.decision.value})"
    return ObjectCheck("Other executions", CheckState.FAILS, said, ", ".join(difference.outputs))


def _row(record: ResultRecord) -> ObjectCheck:
    where = f"in the trail of worker {record.worker}"
    evidence = record.evidence
    if evidence is None:
        return ObjectCheck("Audit row", CheckState.UNKNOWN, f"{where}: the result names no row")
    said = f"{where}: named in what is signed; look there with the commands below"
    return ObjectCheck("Audit row", CheckState.UNKNOWN, said, evidence.row)


def commands_of(found: FarmObject) -> tuple[tuple[str, str], ...]:
    """Return commands that check the object without this page, and what each does."""
    # A row's name is the worker's text: it may look like an option, which quotes do not prevent.
    row = shlex.quote(found.row) if found.row else "ROW"
    show = (f"hpcc audit show -- {row}", "prints every field of the row")
    return (
        *([show] if found.row else []),
        (f"hpcc audit query --action={found.action}", "finds the rows of the action"),
        (f"hpcc audit reproduce --config worker.json -- {row}", "makes it again and compares"),
        ("hpcc audit verify --anchors anchors.json", "checks the chain up to the last anchor"),
    )
