"""Stores outlines of uploaded results, which `hpcc explain` of others compares a miss with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hpcc.cache.key.command_outline import outline_command
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.signed.entry import Content, SignedRecord
from hpcc.cache.signed.outline import MAX_OUTLINES, join_outlines, outline, sign_outline
from hpcc.core.memo import SizedMemo
from hpcc.identity.cache_keys import SigningKey
from hpcc.store.objects import Objects

# Outlines of this daemon's uploads, which the next one of the same source joins; 3 kB is usual.
_MAX_BYTES: Final = 16 << 20


def _size_of(records: tuple[SignedRecord, ...]) -> int:
    return sum(len(part) for record in records for part in record)


def _memo() -> SizedMemo[bytes, tuple[SignedRecord, ...]]:
    return SizedMemo(_size_of, max_bytes=_MAX_BYTES)


@dataclass(slots=True)
class OutlineUpload:
    """Stores the outlines of one daemon in one namespace. One upload may take `seconds`."""

    namespace: str
    seconds: float
    now: Callable[[], float]
    _own: SizedMemo[bytes, tuple[SignedRecord, ...]] = field(default_factory=_memo)

    async def store(
        self, prepared: Prepared, content: Content, signing: SigningKey, objects: Objects
    ) -> None:
        """Store what others compare a miss with, if the command has an outline.

        Raises:
            HpccError, TimeoutError: the service did not take it.
        """
        command = outline_command(prepared)
        compiler = prepared.identity.digest
        made = command and outline(command, compiler, content.inputs, self.now())
        if command is None or made is None:
            return
        # Those of this daemon only: reading first would be one more request for each result.
        record = await asyncio.to_thread(sign_outline, made, self.namespace, signing)
        records = (record, *(self._own.use(command.name) or ()))[:MAX_OUTLINES]
        self._own.put(command.name, records)
        async with asyncio.timeout(self.seconds):
            await objects.put(command.object_name(self.namespace), join_outlines(records))
