"""Rows, events and trails for tests of the audit trail.

`row` and `refusal` make records, `opened` and `written` make a trail on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import GENESIS
from hpcc.audit.base.segments import Placed
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail import walk
from hpcc.audit.log import SpoolAuditLog, open_audit_log
from hpcc.audit.signer.process import SignerProcess
from hpcc.audit.tree.head import record_leaf, start_leaf
from hpcc.audit.tree.merkle import LeafTree
from hpcc.core import Blob, InputFile
from hpcc.files.whole import FaultPoint, no_fault
from hpcc.ports import AuditRow, Clock, SecurityEvent, SystemClock
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc_testkit.farm.in_process import IMAGE

# The default key of the trails that tests open.
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
# About four rows a segment.
SMALL: Final = SpoolLimits(segment_bytes=6300, max_bytes=600_000)


def row(number: int = 0, **changes: object) -> AuditRow:
    """Return a row whose texts all end in its number."""
    values: dict[str, object] = {}
    for field in dataclasses.fields(AuditRow):
        values[field.name] = {"str": f"{field.name}-{number}", "float": 1.5, "int": number}.get(
            str(field.type), ()
        )
    values["outputs"] = (("out/a.o", "ab/1"),)
    values["argv"] = ("gcc", "-c", 'ä\n\t"')
    return AuditRow(**{**values, **changes})  # type: ignore[arg-type]  # built by name just above


def refusal(number: int = 0, **changes: object) -> SecurityEvent:
    """Return a refusal event that carries `number`."""
    values: dict[str, object] = {"name": "token-refused", "at": 1.5 + number, **changes}
    return SecurityEvent(**values)  # type: ignore[arg-type]  # as above


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    worker: str = "w1",
    key: Ed25519PrivateKey | Path | SignerProcess = KEY,
    limits: SpoolLimits | None = None,
    clock: Clock | None = None,
    fault: FaultPoint = no_fault,
    listeners: Iterable[Callable[[SecurityEvent], None]] = (),
    mark: Path | None = None,
) -> AsyncGenerator[SpoolAuditLog]:
    """Return a trail that is open for writing."""
    async with open_audit_log(
        directory,
        worker=worker,
        key=key,
        clock=clock or SystemClock(),
        limits=limits,
        fault=fault,
        listeners=listeners,
        mark=mark,
    ) as log:
        yield log


async def written(
    directory: Path, rows: int, *, start: int = 0, limits: SpoolLimits = SMALL
) -> tuple[int, str]:
    """Write rows, each with its own sync; return the anchor."""
    async with opened(directory, limits=limits) as log:
        for number in range(start, start + rows):
            await log.append(row(number))
        return log.anchor


def tree_of(directory: Path, first: int = 0) -> LeafTree:
    """Return the tree of a trail's records from `first` on, made without the tree's files."""
    records = [item.record for item in walk(directory) if isinstance(item, Placed)]
    previous = records[first - 1].hash if first else GENESIS
    return LeafTree([start_leaf(first, previous), *map(record_leaf, records[first:])])


def made(script: str) -> list[Blob]:
    """Return the blobs of an action with two inputs in two directories; command and action last."""
    one, two = Blob.of(b"int x;\n"), Blob.of(b"int y;\n")
    tree = build_tree([InputFile("dir/a.c", one.digest), InputFile("b.h", two.digest)])
    command = Blob.of(
        encode_command(
            CommandSpec(
                argv=("sh", "-c", script),
                env=(("PATH", "/usr/bin:/bin"),),
                cwd="",
                outputs=("a.o",),
                image=IMAGE,
            )
        )
    )
    action = Blob.of(
        encode_action(
            ActionSpec(command=command.digest, input_root=tree.root, image=IMAGE, salt=b"t")
        )
    )
    return [one, two, *(Blob.of(d) for d in tree.directories.values()), command, action]
