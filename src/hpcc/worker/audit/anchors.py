"""Fetches the anchors that the schedulers hold of a worker's audit chain, to verify the trail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import head_of_text
from hpcc.core import CallerError
from hpcc.rpc.scheduler.audit_api import AuditClient
from hpcc.rpc.scheduler.schedulers import open_schedulers
from hpcc.worker.base.identity import known_certificates, load_identity_or_none

if TYPE_CHECKING:
    from hpcc.ports import SignedHead
    from hpcc.worker.base.config import WorkerConfig


async def fetch_anchors(config: WorkerConfig) -> list[SignedHead]:
    """Fetch the anchors with the worker's identity; their signatures are not checked.

    Raises:
        CallerError: the worker was never enrolled.
        AuditDamagedError: an answer is not a head of this worker.
        HpccError: no scheduler answers, or one refuses.
    """
    identity = await asyncio.to_thread(load_identity_or_none, config.keys)
    if identity is None:
        raise CallerError(
            f"worker {config.worker_id} was never enrolled: nobody holds anchors of it",
            reason="worker-identity",
        )
    peer = known_certificates(config.scheduler_certificate_pem, config.keys).peer
    async with open_schedulers(
        config.scheduler, certificate_pem=peer.certificate_pem, name=peer.name, client=identity.tls
    ) as schedulers:
        lines = await AuditClient(lambda: schedulers).anchors(config.worker_id)
    heads = [head_of_text(line) for line in lines]
    if any(head.worker != config.worker_id for head in heads):
        raise AuditDamagedError("a scheduler gave anchors of another worker")
    return heads
