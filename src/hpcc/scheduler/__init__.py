"""The scheduler: names a worker and signs a token; never sees a source byte."""

from hpcc.scheduler._audit_book import AuditBook, export_anchors
from hpcc.scheduler._audit_database import PostgresAuditSink, open_audit_sink
from hpcc.scheduler._audit_schema import AUDIT_SQL
from hpcc.scheduler._config import SchedulerConfig
from hpcc.scheduler._enrolment import Enrolment
from hpcc.scheduler._result_keys import ResultKeyTable, result_key_table
from hpcc.scheduler._serve import RunningScheduler, open_control, open_enrolment, serve_scheduler
from hpcc.scheduler._signing import ANNOUNCE_SECONDS
from hpcc.scheduler._tenants import ImageRule, TenantPolicy, parse_tenants
from hpcc.scheduler._tenants_door import Admitted, Door
from hpcc.scheduler._tenants_file import load_tenants

__all__ = [
    "ANNOUNCE_SECONDS",
    "AUDIT_SQL",
    "Admitted",
    "AuditBook",
    "Door",
    "Enrolment",
    "ImageRule",
    "PostgresAuditSink",
    "ResultKeyTable",
    "RunningScheduler",
    "SchedulerConfig",
    "TenantPolicy",
    "export_anchors",
    "load_tenants",
    "open_audit_sink",
    "open_control",
    "open_enrolment",
    "parse_tenants",
    "result_key_table",
    "serve_scheduler",
]
