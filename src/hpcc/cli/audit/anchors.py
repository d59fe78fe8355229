"""`hpcc audit verify --scheduler`: fetches the anchors that the schedulers hold now."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.config.paths import Paths
from hpcc.config.service_file import load_service_file
from hpcc.core import NotFoundError

if TYPE_CHECKING:
    from hpcc.ports import SignedHead
    from hpcc.worker.base.config import WorkerConfig


def ask_scheduler(file: Path | None) -> tuple[WorkerConfig, list[SignedHead]]:
    """Return a worker's config and the anchors that its schedulers hold of it.

    Raises:
        CallerError: the file is not a worker's config, or the worker has no valid certificate.
        NotFoundError: the schedulers hold no anchor. An empty list would look like a match.
        HpccError: no scheduler answers, or a scheduler refuses.
    """
    from hpcc.worker.audit.anchors import fetch_anchors
    from hpcc.worker.base.config import WorkerConfig

    path = file or Paths.from_env(os.environ).state / "worker.json"
    config = load_service_file(path.absolute(), WorkerConfig)
    heads = asyncio.run(fetch_anchors(config))
    if not heads:
        raise NotFoundError(f"the schedulers hold no anchor of worker {config.worker_id} yet")
    return config, heads
