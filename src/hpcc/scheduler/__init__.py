"""The scheduler: names a worker and signs a token; never sees a source byte."""

from hpcc.scheduler._config import SchedulerConfig
from hpcc.scheduler._serve import RunningScheduler, serve_scheduler

__all__ = ["RunningScheduler", "SchedulerConfig", "serve_scheduler"]
