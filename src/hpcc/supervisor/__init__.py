"""Keeps the services of `hpcc up` running, and ends all of them together."""

from hpcc.supervisor._policy import GiveUp, Restart, RestartPolicy
from hpcc.supervisor._process import ChildSpec, Ready, SupervisorError
from hpcc.supervisor._run import Supervisor

__all__ = [
    "ChildSpec",
    "GiveUp",
    "Ready",
    "Restart",
    "RestartPolicy",
    "Supervisor",
    "SupervisorError",
]
