"""The seams: what each part asks of the ones below it."""

from hpcc.ports._audit import AuditLog, AuditRow, SecurityEvent
from hpcc.ports._clock import Clock, SystemClock
from hpcc.ports._errors import GuestBootError, GuestLostError
from hpcc.ports._runtime import BlobSource, Guest, GuestIdentity, GuestSpec, Probe, Runtime
from hpcc.ports._stores import ActionCache, BlobStore

__all__ = [
    "ActionCache",
    "AuditLog",
    "AuditRow",
    "BlobSource",
    "BlobStore",
    "Clock",
    "Guest",
    "GuestBootError",
    "GuestIdentity",
    "GuestLostError",
    "GuestSpec",
    "Probe",
    "Runtime",
    "SecurityEvent",
    "SystemClock",
]
