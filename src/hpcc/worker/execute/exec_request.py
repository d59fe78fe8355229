"""What a guest gets for one execution: the request, and blobs of its input tree only."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Final

from hpcc.core import Digest, ExecLimits, ExecRequest, InputFile, InputPart, NotFoundError
from hpcc.ports import BlobStore
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec

# What the guest's own system needs; the compiler gets the rest.
_GUEST_OVERHEAD_MIB: Final = 160


class ExecInputs:
    """`BlobSource` of an execution: gives only blobs of its input tree, from the tenant's store."""

    def __init__(self, store: BlobStore, parts: Iterable[InputPart]) -> None:
        self._store, self._parts = store, tuple(parts)
        self.missing: list[Digest] = []

    async def read(self, digest: Digest) -> bytes:
        if all(part.by_hash.get(digest.hash) != digest for part in self._parts):
            raise NotFoundError("not an input of this action", reason="foreign-input")
        try:
            return (await self._store.get(digest)).data
        except NotFoundError:
            self.missing.append(digest)
            raise


def exec_request(
    action: ActionSpec,
    command: CommandSpec,
    files: tuple[InputFile, ...],
    *,
    memory_mib: int,
    max_wall_seconds: float,
    parts: tuple[InputPart, ...] = (),
    directories: tuple[str, ...] = (),
) -> ExecRequest:
    """Build the request for a guest of `memory_mib`; the shorter of both time limits applies.

    `parts` are those of `files`, if they are known. `directories` are those that hold nothing.
    """
    memory = max(memory_mib - _GUEST_OVERHEAD_MIB, 64) << 20
    wall = min(action.timeout_seconds, max_wall_seconds)
    return ExecRequest(
        exec_id=uuid.uuid4().hex,
        argv=command.argv,
        env=command.env,
        cwd=command.cwd,
        inputs=files,
        outputs=command.root_outputs(),
        output_directories=command.root_directories(),
        input_directories=directories,
        limits=ExecLimits(wall_seconds=wall, memory_bytes=memory),
        parts=parts,
    )
