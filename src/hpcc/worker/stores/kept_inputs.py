"""What a worker keeps of a compile's inputs: all of them for some days, their names for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hpcc.core import Digest, HpccError, InputPart, TenantId
from hpcc.ports import BlobStore, Clock
from hpcc.reapi.action import ActionSpec
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.stores.retained import RetainedInputs, retained_inputs_or_none
from hpcc.worker.stores.sources import KeptSources

# Pause between sweeps; a sweep reads a directory entry for each retained blob.
_SWEEP_SECONDS: Final = 3600.0


class KeptInputs:
    """Keeps inputs in both stores; see `retained` and `sources`."""

    def __init__(
        self, retained: RetainedInputs | None, sources: KeptSources | None, clock: Clock
    ) -> None:
        self._retained, self._sources, self._clock = retained, sources, clock

    async def keep(
        self,
        tenant: TenantId,
        source: BlobStore,
        digest: Digest,
        action: ActionSpec,
        inputs: Sequence[InputPart],
    ) -> None:
        """Keep what belongs to an action; `inputs` are the directories of its input tree.

        A store that fails does not keep the other one from it.

        Raises:
            NotFoundError: `source` has lost a blob.
            InfrastructureError: a blob cannot be written, or there is no room for it.
        """
        failure: HpccError | None = None
        if self._sources is not None:
            try:
                await self._sources.keep(tenant, source, inputs)
            except HpccError as error:
                failure = error
        if self._retained is not None:
            await self._retained.keep(tenant, source, digest, action, inputs)
        if failure is not None:
            raise failure

    async def sweep(self) -> None:
        """Remove what is no longer kept, every hour until cancelled."""
        while True:
            if self._retained is not None:
                await asyncio.to_thread(self._retained.remove_expired)
            if self._sources is not None:
                await asyncio.to_thread(self._sources.sweep)
            await self._clock.sleep(_SWEEP_SECONDS)


def kept_inputs_or_none(config: WorkerConfig, clock: Clock) -> KeptInputs | None:
    """Return what a worker's configuration asks for; None if it keeps nothing."""
    retained, sources = retained_inputs_or_none(config, clock), None
    if config.audit_sources_bytes:
        sources = KeptSources(
            config.store, config.audit, max_bytes=config.audit_sources_bytes, clock=clock
        )
    return KeptInputs(retained, sources, clock) if retained or sources else None
