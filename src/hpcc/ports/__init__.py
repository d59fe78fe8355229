"""The seams: Protocols that adapters implement and that services are written against.

Each port has one contract suite that every implementation passes. The system clock is the only
implementation here.
"""

from hpcc.ports.audit import (
    AuditLog,
    AuditRow,
    SecurityEvent,
    SignedHead,
    SignedTree,
    TreeMark,
)
from hpcc.ports.clock import Clock, SystemClock
from hpcc.ports.control import (
    ENTRY_TOPIC,
    MAX_FACTS_BYTES,
    MAX_NAME_CHARS,
    MAX_NEWS_CHARS,
    MAX_SHARE_SECONDS,
    MAX_VALUE_BYTES,
    REREAD,
    Anchor,
    ConflictError,
    ControlStore,
    ControlStoreError,
    Divide,
    Entry,
    LeasedShare,
    News,
    Reread,
    SessionAsk,
    SessionFloor,
    ShareKey,
    WorkerLease,
)
from hpcc.ports.errors import GuestBootError, GuestLostError
from hpcc.ports.runtime import BlobSource, Guest, GuestIdentity, GuestSpec, Probe, Runtime
from hpcc.ports.stores import ActionCache, BlobStore

__all__ = [
    "ENTRY_TOPIC",
    "MAX_FACTS_BYTES",
    "MAX_NAME_CHARS",
    "MAX_NEWS_CHARS",
    "MAX_SHARE_SECONDS",
    "MAX_VALUE_BYTES",
    "REREAD",
    "ActionCache",
    "Anchor",
    "AuditLog",
    "AuditRow",
    "BlobSource",
    "BlobStore",
    "Clock",
    "ConflictError",
    "ControlStore",
    "ControlStoreError",
    "Divide",
    "Entry",
    "Guest",
    "GuestBootError",
    "GuestIdentity",
    "GuestLostError",
    "GuestSpec",
    "LeasedShare",
    "News",
    "Probe",
    "Reread",
    "Runtime",
    "SecurityEvent",
    "SessionAsk",
    "SessionFloor",
    "ShareKey",
    "SignedHead",
    "SignedTree",
    "SystemClock",
    "TreeMark",
    "WorkerLease",
]
