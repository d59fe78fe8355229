"""Keeps the services of `hpcc up` running, and ends all of them together."""

from hpcc.supervisor._policy import GiveUp, Restart, RestartPolicy
from hpcc.supervisor._process import ChildSpec, Ready, SupervisorError
from hpcc.supervisor._run import Supervisor
from hpcc.supervisor._windows_service import (
    DEFAULT_STOP_SECONDS,
    WorkerService,
    install_worker,
    uninstall_worker,
    worker_spec,
)

__all__ = [
    "DEFAULT_STOP_SECONDS",
    "ChildSpec",
    "GiveUp",
    "Ready",
    "Restart",
    "RestartPolicy",
    "Supervisor",
    "SupervisorError",
    "WorkerService",
    "install_worker",
    "uninstall_worker",
    "worker_spec",
]
