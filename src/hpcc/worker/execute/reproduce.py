"""`hpcc audit reproduce`: runs an action again from its row and retained inputs, and compares.

The operator runs it on the worker's machine, where the worker may be running too. It boots separate
guests, reads the stores without changing them, and writes nothing to the trail.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import (
    CallerError,
    Digest,
    ExecRequest,
    GuestMitigations,
    GuestReuse,
    ImageDigest,
    InfrastructureError,
    InputFile,
    IntegrityError,
    Isolation,
    NotFoundError,
    TenantId,
)
from hpcc.files import lock_now, open_file
from hpcc.ports import AuditRow, GuestIdentity, GuestSpec, Runtime
from hpcc.reapi.action import ActionSpec, parse_action
from hpcc.reapi.command import CommandSpec, parse_command
from hpcc.reapi.tree import TreeWalk
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.execute.exec_request import exec_request
from hpcc.worker.execute.output_collector import GuestOutputCollector
from hpcc.worker.pool.pool import ImageProvider
from hpcc.worker.stores.retained import RetainedReader

# Beyond the compile's own limit: staging and fetching over the guest's one stream.
_TRANSFER_SECONDS: Final = 120.0
# How many expired inputs the report names; it counts the rest.
MAX_NAMED: Final = 50


class Verdict(StrEnum):
    """How a reproduction ended."""

    REPRODUCED = "reproduced"
    DIFFERENT = "different"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is gone or differs: its name, and how it differs."""

    name: str
    text: str


@dataclass(slots=True)
class Reproduction:
    """The verdict and its evidence. `notes` are differences that need not change an output.

    If the action ran, `boundary` is the guest that it ran in, and `made` has what it left: paths
    with digests.
    """

    verdict: Verdict
    findings: list[Difference] = field(default_factory=list)
    notes: list[Difference] = field(default_factory=list)
    outputs: int = 0
    boundary: GuestIdentity | None = None
    made: Mapping[str, str] | None = None


class RuntimeChoice(Protocol):
    """Gives the runtime of an isolation that this machine has now."""

    async def __call__(self, isolation: Isolation, state: Path) -> Runtime:
        """Return the runtime; `state` is a directory that it may use.

        Raises:
            InfrastructureError, CallerError: the isolation does not work here.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Inputs:
    action: ActionSpec
    command: CommandSpec
    files: tuple[InputFile, ...]
    directories: tuple[str, ...]


async def reproduce_row(
    config: WorkerConfig,
    row: AuditRow,
    *,
    choose_runtime: RuntimeChoice,
    images: ImageProvider,
    progress: Callable[[str], None],
) -> Reproduction:
    """Run the action of `row` again as the worker with `config` would, and compare the outputs.

    Raises:
        InfrastructureError: the guest failed, or another reproduction runs.
        IntegrityError: the retained inputs do not belong to the row, or the guest broke the
            protocol.
    """
    if row.cache_status == "abandoned" or row.reason:
        finding = Difference("row", f"{row.cache_status}, {row.reason or 'no result'}")
        return Reproduction(Verdict.NOT_COMPARABLE, [finding])
    reader = RetainedReader(config.store, TenantId(row.tenant))
    gone: list[Difference] = []
    inputs = await _gather(reader, row, gone)
    path = await _image_or_none(images, row, gone)
    if inputs is None or path is None or gone:
        return Reproduction(Verdict.EXPIRED, gone)
    named = {i.digest.value for i in (inputs.action.image, inputs.command.image) if i}
    if named != {row.image_digest}:
        raise IntegrityError("the action is of another image than the row", reason="audit-row")
    progress("starting a guest")
    async with _own_state(config) as state:
        try:
            runtime = await choose_runtime(Isolation(row.isolation), state)
        except (InfrastructureError, CallerError) as error:
            return Reproduction(Verdict.UNAVAILABLE, [Difference(row.isolation, str(error))])
        if runtime.isolation.value != row.isolation:
            finding = Difference("isolation", f"{row.isolation} then, {runtime.isolation} now")
            return Reproduction(Verdict.UNAVAILABLE, [finding])
        return await _run(config, row, inputs, runtime=runtime, image=path, reader=reader)


async def _gather(reader: RetainedReader, row: AuditRow, gone: list[Difference]) -> _Inputs | None:
    """Read everything that the action needs; append what is missing to `gone`."""
    try:
        action = parse_action((await reader.get(Digest.parse(row.action_digest))).data)
    except NotFoundError:
        gone.append(Difference("action", row.action_digest))
        gone.append(
            Difference("input tree", f"{row.input_root_digest}, unknown without its action")
        )
        return None
    if str(action.input_root) != row.input_root_digest:
        raise IntegrityError("the action has another tree than the row", reason="audit-row")
    try:
        command = parse_command((await reader.get(action.command)).data)
    except NotFoundError:
        gone.append(Difference("command", str(action.command)))
        command = None
    tree = await _tree(reader, action.input_root, gone)
    for file in tree.files:
        try:
            await reader.get(file.digest)
        except NotFoundError:
            gone.append(Difference(file.path, str(file.digest)))
    if command is None:
        return None
    return _Inputs(action, command, tree.files, tree.empty_directories)


async def _tree(reader: RetainedReader, root: Digest, gone: list[Difference]) -> TreeWalk:
    walk, absent = TreeWalk(root), set[Digest]()
    while wanted := set(walk.wanted) - absent:
        for digest in sorted(wanted):
            try:
                walk.feed(digest, (await reader.get(digest)).data)
            except NotFoundError:
                absent.add(digest)
                what = "the root directory" if digest == root else "a directory"
                gone.append(Difference(what, str(digest)))
    return walk


async def _image_or_none(
    images: ImageProvider, row: AuditRow, gone: list[Difference]
) -> Path | None:
    try:
        return await images.image(ImageDigest(row.image_digest))
    except NotFoundError:
        gone.append(Difference("image", row.image_digest))
        return None


@asynccontextmanager
async def _own_state(config: WorkerConfig) -> AsyncGenerator[Path]:
    """Yield a state directory beside the worker's, which the worker does not sweep.

    Raises:
        InfrastructureError: another reproduction runs.
    """
    directory = config.state.with_name(config.state.name + "-reproduce")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = open_file(directory / "lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            lock_now(descriptor)
        except BlockingIOError as error:
            raise InfrastructureError(
                "another `hpcc audit reproduce` runs: wait for it", reason="reproduce-busy"
            ) from error
        yield directory
    finally:
        os.close(descriptor)


async def _run(
    config: WorkerConfig,
    row: AuditRow,
    inputs: _Inputs,
    *,
    runtime: Runtime,
    image: Path,
    reader: RetainedReader,
) -> Reproduction:
    request = exec_request(
        inputs.action,
        inputs.command,
        inputs.files,
        directories=inputs.directories,
        memory_mib=config.memory_of(ImageDigest(row.image_digest)),
        max_wall_seconds=config.max_wall_seconds,
    )
    spec = GuestSpec(
        image=ImageDigest(row.image_digest),
        image_path=image,
        memory_mib=config.memory_of(ImageDigest(row.image_digest)),
        vcpus=config.vcpus,
        boot_timeout_seconds=config.boot_timeout_seconds,
        has_mitigations=GuestMitigations(config.guest_mitigations).are_on(GuestReuse.EXEC),
    )
    async with runtime.guest(spec) as guest:
        collector = await _execute(guest.exec(request, reader), request)
        identity = guest.identity
    return _compared(row, inputs.command, collector, identity)


async def _execute(events: AsyncGenerator[object], request: ExecRequest) -> GuestOutputCollector:
    collector = GuestOutputCollector(request)
    try:
        async with (
            asyncio.timeout(request.limits.wall_seconds + _TRANSFER_SECONDS),
            aclosing(events) as stream,
        ):
            async for event in stream:
                collector.take(event)  # type: ignore[arg-type]  # ExecEvent, checked there
    except TimeoutError as error:
        raise InfrastructureError("the guest did not answer in time", reason="deadline") from error
    return collector


def _compared(
    row: AuditRow, command: CommandSpec, collector: GuestOutputCollector, identity: GuestIdentity
) -> Reproduction:
    event = collector.check()
    if event.reason:
        finding = Difference("end", event.reason)
        return Reproduction(Verdict.DIFFERENT, [finding], boundary=identity, made={})
    made = {posixpath.normpath(path): str(digest) for path, digest in collector.digests().items()}
    before = dict(row.outputs)
    findings = [
        Difference(path, f"{before.get(path, 'absent')} then, {made.get(path, 'absent')} now")
        for path in sorted(made.keys() | before.keys())
        if made.get(path) != before.get(path)
    ]
    if event.exit_code != row.exit_code:
        findings.append(Difference("exit code", f"{row.exit_code} then, {event.exit_code} now"))
    verdict = Verdict.DIFFERENT if findings else Verdict.REPRODUCED
    return Reproduction(
        verdict, findings, _notes(row, identity), len(before), boundary=identity, made=made
    )


def _notes(row: AuditRow, identity: GuestIdentity) -> list[Difference]:
    pairs = (
        ("kernel", row.kernel_digest, identity.kernel_digest),
        ("agent", row.agent_digest, identity.agent_digest),
        ("VMM", row.vmm_digest, identity.vmm_digest),
    )
    return [Difference(name, f"{then} then, {now} now") for name, then, now in pairs if then != now]
