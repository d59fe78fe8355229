from hpcc._proto import builds_pb2 as _builds_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ("tenant", "after_worker")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    AFTER_WORKER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    after_worker: str
    def __init__(self, tenant: _Optional[str] = ..., after_worker: _Optional[str] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("scheduler_id", "version", "at", "is_operator", "is_store_up", "live", "stale", "has_room", "tenants", "capacity", "running", "queued", "workers", "has_more", "draining")
    SCHEDULER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    IS_OPERATOR_FIELD_NUMBER: _ClassVar[int]
    IS_STORE_UP_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    HAS_ROOM_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    scheduler_id: str
    version: str
    at: float
    is_operator: bool
    is_store_up: bool
    live: int
    stale: int
    has_room: bool
    tenants: _containers.RepeatedCompositeFieldContainer[TenantStatus]
    capacity: int
    running: int
    queued: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    has_more: bool
    draining: int
    def __init__(self, scheduler_id: _Optional[str] = ..., version: _Optional[str] = ..., at: _Optional[float] = ..., is_operator: _Optional[bool] = ..., is_store_up: _Optional[bool] = ..., live: _Optional[int] = ..., stale: _Optional[int] = ..., has_room: _Optional[bool] = ..., tenants: _Optional[_Iterable[_Union[TenantStatus, _Mapping]]] = ..., capacity: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., has_more: _Optional[bool] = ..., draining: _Optional[int] = ...) -> None: ...

class TenantStatus(_message.Message):
    __slots__ = ("tenant", "daemons", "wanted", "granted", "principals", "routes")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    daemons: int
    wanted: int
    granted: int
    principals: int
    routes: _containers.RepeatedCompositeFieldContainer[RouteCount]
    def __init__(self, tenant: _Optional[str] = ..., daemons: _Optional[int] = ..., wanted: _Optional[int] = ..., granted: _Optional[int] = ..., principals: _Optional[int] = ..., routes: _Optional[_Iterable[_Union[RouteCount, _Mapping]]] = ...) -> None: ...

class RouteCount(_message.Message):
    __slots__ = ("result", "count")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    result: str
    count: int
    def __init__(self, result: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker_id", "endpoint", "isolation", "is_stale", "is_heard", "capacity", "running", "queued", "images", "lost_guests", "lease_seconds", "drain", "drain_seconds", "drain_by", "drain_reason", "heard_seconds", "version", "up_seconds", "load", "store_bytes", "store_limit_bytes", "wait_p95_seconds", "waits")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    IS_HEARD_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LOST_GUESTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    DRAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_BY_FIELD_NUMBER: _ClassVar[int]
    DRAIN_REASON_FIELD_NUMBER: _ClassVar[int]
    HEARD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_P95_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    endpoint: str
    isolation: str
    is_stale: bool
    is_heard: bool
    capacity: int
    running: int
    queued: int
    images: int
    lost_guests: float
    lease_seconds: float
    drain: str
    drain_seconds: float
    drain_by: str
    drain_reason: str
    heard_seconds: float
    version: str
    up_seconds: float
    load: float
    store_bytes: int
    store_limit_bytes: int
    wait_p95_seconds: float
    waits: int
    def __init__(self, worker_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., isolation: _Optional[str] = ..., is_stale: _Optional[bool] = ..., is_heard: _Optional[bool] = ..., capacity: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., images: _Optional[int] = ..., lost_guests: _Optional[float] = ..., lease_seconds: _Optional[float] = ..., drain: _Optional[str] = ..., drain_seconds: _Optional[float] = ..., drain_by: _Optional[str] = ..., drain_reason: _Optional[str] = ..., heard_seconds: _Optional[float] = ..., version: _Optional[str] = ..., up_seconds: _Optional[float] = ..., load: _Optional[float] = ..., store_bytes: _Optional[int] = ..., store_limit_bytes: _Optional[int] = ..., wait_p95_seconds: _Optional[float] = ..., waits: _Optional[int] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("samples",)
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[LoadSample]
    def __init__(self, samples: _Optional[_Iterable[_Union[LoadSample, _Mapping]]] = ...) -> None: ...

class LoadSample(_message.Message):
    __slots__ = ("at", "live", "stale", "draining", "capacity", "running", "queued")
    AT_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    at: float
    live: int
    stale: int
    draining: int
    capacity: int
    running: int
    queued: int
    def __init__(self, at: _Optional[float] = ..., live: _Optional[int] = ..., stale: _Optional[int] = ..., draining: _Optional[int] = ..., capacity: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class EventsResponse(_message.Message):
    __slots__ = ("since", "events", "worker_events")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    WORKER_EVENTS_FIELD_NUMBER: _ClassVar[int]
    since: float
    events: _containers.RepeatedCompositeFieldContainer[SeenEvent]
    worker_events: _containers.RepeatedCompositeFieldContainer[SeenEvent]
    def __init__(self, since: _Optional[float] = ..., events: _Optional[_Iterable[_Union[SeenEvent, _Mapping]]] = ..., worker_events: _Optional[_Iterable[_Union[SeenEvent, _Mapping]]] = ...) -> None: ...

class SeenEvent(_message.Message):
    __slots__ = ("name", "at", "tenant", "peer", "fields", "worker")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    name: str
    at: float
    tenant: str
    peer: str
    fields: _containers.RepeatedCompositeFieldContainer[EventField]
    worker: str
    def __init__(self, name: _Optional[str] = ..., at: _Optional[float] = ..., tenant: _Optional[str] = ..., peer: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[EventField, _Mapping]]] = ..., worker: _Optional[str] = ...) -> None: ...

class EventField(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class WorkerRequest(_message.Message):
    __slots__ = ("tenant", "worker_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    worker_id: str
    def __init__(self, tenant: _Optional[str] = ..., worker_id: _Optional[str] = ...) -> None: ...

class WorkerResponse(_message.Message):
    __slots__ = ("images", "places")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[WorkerImage]
    places: _containers.RepeatedCompositeFieldContainer[TenantPlaces]
    def __init__(self, images: _Optional[_Iterable[_Union[WorkerImage, _Mapping]]] = ..., places: _Optional[_Iterable[_Union[TenantPlaces, _Mapping]]] = ...) -> None: ...

class WorkerImage(_message.Message):
    __slots__ = ("digest", "compilers")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMPILERS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    compilers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., compilers: _Optional[_Iterable[str]] = ...) -> None: ...

class TenantPlaces(_message.Message):
    __slots__ = ("tenant", "wanted", "granted", "held", "principals")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    wanted: int
    granted: int
    held: int
    principals: int
    def __init__(self, tenant: _Optional[str] = ..., wanted: _Optional[int] = ..., granted: _Optional[int] = ..., held: _Optional[int] = ..., principals: _Optional[int] = ...) -> None: ...
