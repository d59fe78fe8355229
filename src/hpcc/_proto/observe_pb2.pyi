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
    __slots__ = ("tenant", "daemons", "wanted", "granted", "principals")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    daemons: int
    wanted: int
    granted: int
    principals: int
    def __init__(self, tenant: _Optional[str] = ..., daemons: _Optional[int] = ..., wanted: _Optional[int] = ..., granted: _Optional[int] = ..., principals: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker_id", "endpoint", "isolation", "is_stale", "is_heard", "capacity", "running", "queued", "images", "lost_guests", "lease_seconds", "drain", "drain_seconds", "drain_by", "drain_reason")
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
    def __init__(self, worker_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., isolation: _Optional[str] = ..., is_stale: _Optional[bool] = ..., is_heard: _Optional[bool] = ..., capacity: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., images: _Optional[int] = ..., lost_guests: _Optional[float] = ..., lease_seconds: _Optional[float] = ..., drain: _Optional[str] = ..., drain_seconds: _Optional[float] = ..., drain_by: _Optional[str] = ..., drain_reason: _Optional[str] = ...) -> None: ...
