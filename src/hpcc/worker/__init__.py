"""The worker: REAPI v2 in front, guests behind, a row for everything it releases."""

from hpcc.worker._config import WorkerConfig
from hpcc.worker._pool import ImageProvider
from hpcc.worker._serve import RunningWorker, serve_worker

__all__ = ["ImageProvider", "RunningWorker", "WorkerConfig", "serve_worker"]
