"""The append-only, hash-chained record of who compiled what, where and under which isolation."""

from hpcc.audit._canonical import (
    GENESIS,
    MAX_RECORD_BYTES,
    AuditDamagedError,
    Record,
    decode_record,
    event_of,
    foreign_record,
    row_of,
)
from hpcc.audit._cursor import TrailCursor
from hpcc.audit._heads import HeadSigner, check_head, head_of_text, head_text
from hpcc.audit._index import AuditIndex, Query
from hpcc.audit._limiter import EventLimiter
from hpcc.audit._log import SpoolAuditLog, open_audit_log
from hpcc.audit._reader import open_index
from hpcc.audit._segments import (
    FaultPoint,
    Seal,
    no_fault,
    seal_or_none,
    seal_path,
    segment_path,
    spool_path,
)
from hpcc.audit._spool import SpoolFullError, SpoolLimits
from hpcc.audit._verify import Verified, read_anchors, verify_trail

__all__ = [
    "GENESIS",
    "MAX_RECORD_BYTES",
    "AuditDamagedError",
    "AuditIndex",
    "EventLimiter",
    "FaultPoint",
    "HeadSigner",
    "Query",
    "Record",
    "Seal",
    "SpoolAuditLog",
    "SpoolFullError",
    "SpoolLimits",
    "TrailCursor",
    "Verified",
    "check_head",
    "decode_record",
    "event_of",
    "foreign_record",
    "head_of_text",
    "head_text",
    "no_fault",
    "open_audit_log",
    "open_index",
    "read_anchors",
    "row_of",
    "seal_or_none",
    "seal_path",
    "segment_path",
    "spool_path",
    "verify_trail",
]
