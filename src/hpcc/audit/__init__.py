"""The append-only, hash-chained record of who compiled what, where and under which isolation."""

from hpcc.audit._canonical import AuditDamagedError, Record, row_of
from hpcc.audit._index import AuditIndex, Query
from hpcc.audit._log import SpoolAuditLog, open_audit_log
from hpcc.audit._reader import open_index, verify_chain
from hpcc.audit._spool import spool_path

__all__ = [
    "AuditDamagedError",
    "AuditIndex",
    "Query",
    "Record",
    "SpoolAuditLog",
    "open_audit_log",
    "open_index",
    "row_of",
    "spool_path",
    "verify_chain",
]
