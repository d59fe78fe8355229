"""The network: gRPC clients and servers over pinned TLS; the only home of generated types."""

from hpcc.rpc._audit_api import (
    MAX_AUDIT_BYTES,
    AuditBackend,
    AuditClient,
    AuditPlace,
    audit_handlers,
)
from hpcc.rpc._channel import (
    MAX_BATCH_BYTES,
    MAX_MESSAGE_BYTES,
    ClientTls,
    ServerTls,
    dial,
    open_channel,
    start_server,
)
from hpcc.rpc._enrolment import (
    WorkerGrant,
    ask_to_enrol,
    ask_to_renew,
    enrol_handlers,
    renew_handlers,
)
from hpcc.rpc._errors import (
    BusyError,
    DeadlineError,
    MissingBlobsError,
    UnauthenticatedError,
    UnavailableError,
)
from hpcc.rpc._foreign_service import (
    ServiceActionCache,
    ServiceBlobStore,
    ServiceConfig,
    connect_service,
    open_service_channel,
    service_client,
)
from hpcc.rpc._method import Call, OnRefusal, current_caller
from hpcc.rpc._process import ServiceProcess, leaf_error, run_service
from hpcc.rpc._pulse import Pulse
from hpcc.rpc._reapi_client import (
    ReapiClient,
    ReapiClientConfig,
    ServiceCapabilities,
    answers,
    check_token,
)
from hpcc.rpc._reapi_server import (
    Authorizer,
    Client,
    Finished,
    Running,
    Session,
    reapi_handlers,
)
from hpcc.rpc._relay_link import IMAGE_METADATA, RelayCall, RelayedError, RelayHandlers, RelayLink
from hpcc.rpc._relay_methods import (
    MAX_RELAY_REQUEST_BYTES,
    RELAY_METHODS,
    RelayMethod,
    Shape,
    Target,
    operation_name,
)
from hpcc.rpc._relay_upstream import Upstream, is_lost
from hpcc.rpc._scheduler_api import (
    WATCHING,
    Admission,
    Beat,
    BeatAnswer,
    Registration,
    Route,
    RouteAsk,
    RouteChange,
    SchedulerBackend,
    SessionGrant,
)
from hpcc.rpc._scheduler_client import RegistryClient, SchedulerClient
from hpcc.rpc._scheduler_server import registry_handlers, scheduler_handlers
from hpcc.rpc._scheduler_words import MAX_GENERATION, pack_registration, unpack_registration
from hpcc.rpc._schedulers import Schedulers, open_schedulers, split_schedulers
from hpcc.rpc._write_order import WriteOrder

__all__ = [
    "IMAGE_METADATA",
    "MAX_AUDIT_BYTES",
    "MAX_BATCH_BYTES",
    "MAX_GENERATION",
    "MAX_MESSAGE_BYTES",
    "MAX_RELAY_REQUEST_BYTES",
    "RELAY_METHODS",
    "WATCHING",
    "Admission",
    "AuditBackend",
    "AuditClient",
    "AuditPlace",
    "Authorizer",
    "Beat",
    "BeatAnswer",
    "BusyError",
    "Call",
    "Client",
    "ClientTls",
    "DeadlineError",
    "Finished",
    "MissingBlobsError",
    "OnRefusal",
    "Pulse",
    "ReapiClient",
    "ReapiClientConfig",
    "Registration",
    "RegistryClient",
    "RelayCall",
    "RelayHandlers",
    "RelayLink",
    "RelayMethod",
    "RelayedError",
    "Route",
    "RouteAsk",
    "RouteChange",
    "Running",
    "SchedulerBackend",
    "SchedulerClient",
    "Schedulers",
    "ServerTls",
    "ServiceActionCache",
    "ServiceBlobStore",
    "ServiceCapabilities",
    "ServiceConfig",
    "ServiceProcess",
    "Session",
    "SessionGrant",
    "Shape",
    "Target",
    "UnauthenticatedError",
    "UnavailableError",
    "Upstream",
    "WorkerGrant",
    "WriteOrder",
    "answers",
    "ask_to_enrol",
    "ask_to_renew",
    "audit_handlers",
    "check_token",
    "connect_service",
    "current_caller",
    "dial",
    "enrol_handlers",
    "is_lost",
    "leaf_error",
    "open_channel",
    "open_schedulers",
    "open_service_channel",
    "operation_name",
    "pack_registration",
    "reapi_handlers",
    "registry_handlers",
    "renew_handlers",
    "run_service",
    "scheduler_handlers",
    "service_client",
    "split_schedulers",
    "start_server",
    "unpack_registration",
]
