"""The network: gRPC clients and servers over pinned TLS; the only home of generated types."""

from hpcc.rpc._channel import (
    MAX_BATCH_BYTES,
    MAX_MESSAGE_BYTES,
    ServerTls,
    open_channel,
    start_server,
)
from hpcc.rpc._errors import (
    BusyError,
    DeadlineError,
    MissingBlobsError,
    UnauthenticatedError,
    UnavailableError,
)
from hpcc.rpc._method import Call, OnRefusal, current_caller
from hpcc.rpc._process import ServiceProcess, leaf_error, run_service
from hpcc.rpc._reapi_client import ReapiClient, ReapiClientConfig
from hpcc.rpc._reapi_server import (
    Authorizer,
    Client,
    Finished,
    Running,
    Session,
    reapi_handlers,
)
from hpcc.rpc._scheduler_api import (
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
from hpcc.rpc._scheduler_server import scheduler_handlers

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_MESSAGE_BYTES",
    "Admission",
    "Authorizer",
    "Beat",
    "BeatAnswer",
    "BusyError",
    "Call",
    "Client",
    "DeadlineError",
    "Finished",
    "MissingBlobsError",
    "OnRefusal",
    "ReapiClient",
    "ReapiClientConfig",
    "Registration",
    "RegistryClient",
    "Route",
    "RouteAsk",
    "RouteChange",
    "Running",
    "SchedulerBackend",
    "SchedulerClient",
    "ServerTls",
    "ServiceProcess",
    "Session",
    "SessionGrant",
    "UnauthenticatedError",
    "UnavailableError",
    "current_caller",
    "leaf_error",
    "open_channel",
    "reapi_handlers",
    "run_service",
    "scheduler_handlers",
    "start_server",
]
