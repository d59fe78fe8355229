"""The worker: REAPI v2 in front, guests behind, a row for everything it releases."""

from hpcc.worker._anchors import fetch_anchors
from hpcc.worker._audit_objects import ObjectSinkConfig, SegmentUploader, read_credential
from hpcc.worker._audit_shipper import Shipper
from hpcc.worker._config import AUDIT_KEY_NAME, WorkerConfig
from hpcc.worker._identity import IDENTITY_NAME, enrol_worker, load_identity_or_none, read_token
from hpcc.worker._pool import ImageProvider
from hpcc.worker._reproduce import MAX_NAMED, Finding, Reproduction, Verdict, reproduce_row
from hpcc.worker._retained import RetainedInputs
from hpcc.worker._serve import RunningWorker, serve_worker
from hpcc.worker._stores_book import StoresReport, read_stores_report
from hpcc.worker._toolchains import ToolchainBook

__all__ = [
    "AUDIT_KEY_NAME",
    "IDENTITY_NAME",
    "MAX_NAMED",
    "Finding",
    "ImageProvider",
    "ObjectSinkConfig",
    "Reproduction",
    "RetainedInputs",
    "RunningWorker",
    "SegmentUploader",
    "Shipper",
    "StoresReport",
    "ToolchainBook",
    "Verdict",
    "WorkerConfig",
    "enrol_worker",
    "fetch_anchors",
    "load_identity_or_none",
    "read_credential",
    "read_stores_report",
    "read_token",
    "reproduce_row",
    "serve_worker",
]
