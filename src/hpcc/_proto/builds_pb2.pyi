from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportBuildRequest(_message.Message):
    __slots__ = ("tenant", "summary")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    summary: BuildSummary
    def __init__(self, tenant: _Optional[str] = ..., summary: _Optional[_Union[BuildSummary, _Mapping]] = ...) -> None: ...

class ReportBuildResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BuildSummary(_message.Message):
    __slots__ = ("build", "source", "began_ms", "ended_ms", "commit", "busy_ms", "total_ms", "at_once", "left_out", "is_damaged", "kinds", "causes", "phases", "places", "slowest", "activity", "lanes", "off_lanes")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    BEGAN_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    BUSY_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    IS_DAMAGED_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    OFF_LANES_FIELD_NUMBER: _ClassVar[int]
    build: str
    source: str
    began_ms: int
    ended_ms: int
    commit: str
    busy_ms: int
    total_ms: int
    at_once: int
    left_out: int
    is_damaged: bool
    kinds: _containers.RepeatedCompositeFieldContainer[BuildTally]
    causes: _containers.RepeatedCompositeFieldContainer[BuildCause]
    phases: _containers.RepeatedCompositeFieldContainer[BuildTally]
    places: _containers.RepeatedCompositeFieldContainer[BuildTally]
    slowest: _containers.RepeatedCompositeFieldContainer[SlowCompile]
    activity: _containers.RepeatedCompositeFieldContainer[BuildActivity]
    lanes: _containers.RepeatedCompositeFieldContainer[BuildLane]
    off_lanes: int
    def __init__(self, build: _Optional[str] = ..., source: _Optional[str] = ..., began_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., commit: _Optional[str] = ..., busy_ms: _Optional[int] = ..., total_ms: _Optional[int] = ..., at_once: _Optional[int] = ..., left_out: _Optional[int] = ..., is_damaged: _Optional[bool] = ..., kinds: _Optional[_Iterable[_Union[BuildTally, _Mapping]]] = ..., causes: _Optional[_Iterable[_Union[BuildCause, _Mapping]]] = ..., phases: _Optional[_Iterable[_Union[BuildTally, _Mapping]]] = ..., places: _Optional[_Iterable[_Union[BuildTally, _Mapping]]] = ..., slowest: _Optional[_Iterable[_Union[SlowCompile, _Mapping]]] = ..., activity: _Optional[_Iterable[_Union[BuildActivity, _Mapping]]] = ..., lanes: _Optional[_Iterable[_Union[BuildLane, _Mapping]]] = ..., off_lanes: _Optional[int] = ...) -> None: ...

class BuildTally(_message.Message):
    __slots__ = ("word", "compiles", "took_ms")
    WORD_FIELD_NUMBER: _ClassVar[int]
    COMPILES_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    word: str
    compiles: int
    took_ms: int
    def __init__(self, word: _Optional[str] = ..., compiles: _Optional[int] = ..., took_ms: _Optional[int] = ...) -> None: ...

class BuildCause(_message.Message):
    __slots__ = ("family", "word", "compiles", "took_ms")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    COMPILES_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    family: str
    word: str
    compiles: int
    took_ms: int
    def __init__(self, family: _Optional[str] = ..., word: _Optional[str] = ..., compiles: _Optional[int] = ..., took_ms: _Optional[int] = ...) -> None: ...

class SlowCompile(_message.Message):
    __slots__ = ("offset_ms", "took_ms", "kind", "word", "where", "guest")
    OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    offset_ms: int
    took_ms: int
    kind: str
    word: str
    where: str
    guest: str
    def __init__(self, offset_ms: _Optional[int] = ..., took_ms: _Optional[int] = ..., kind: _Optional[str] = ..., word: _Optional[str] = ..., where: _Optional[str] = ..., guest: _Optional[str] = ...) -> None: ...

class BuildActivity(_message.Message):
    __slots__ = ("served", "farm_ms", "here_ms", "instead_ms")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    FARM_MS_FIELD_NUMBER: _ClassVar[int]
    HERE_MS_FIELD_NUMBER: _ClassVar[int]
    INSTEAD_MS_FIELD_NUMBER: _ClassVar[int]
    served: int
    farm_ms: int
    here_ms: int
    instead_ms: int
    def __init__(self, served: _Optional[int] = ..., farm_ms: _Optional[int] = ..., here_ms: _Optional[int] = ..., instead_ms: _Optional[int] = ...) -> None: ...

class BuildLane(_message.Message):
    __slots__ = ("place", "bars")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    BARS_FIELD_NUMBER: _ClassVar[int]
    place: int
    bars: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, place: _Optional[int] = ..., bars: _Optional[_Iterable[int]] = ...) -> None: ...

class BuildsRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class BuildsResponse(_message.Message):
    __slots__ = ("builds", "since", "displaced", "kept", "keep_seconds")
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    DISPLACED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    KEEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[KeptBuild]
    since: float
    displaced: int
    kept: int
    keep_seconds: int
    def __init__(self, builds: _Optional[_Iterable[_Union[KeptBuild, _Mapping]]] = ..., since: _Optional[float] = ..., displaced: _Optional[int] = ..., kept: _Optional[int] = ..., keep_seconds: _Optional[int] = ...) -> None: ...

class BuildRequest(_message.Message):
    __slots__ = ("tenant", "build_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    build_id: str
    def __init__(self, tenant: _Optional[str] = ..., build_id: _Optional[str] = ...) -> None: ...

class BuildResponse(_message.Message):
    __slots__ = ("reports", "kept")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[KeptBuild]
    kept: int
    def __init__(self, reports: _Optional[_Iterable[_Union[KeptBuild, _Mapping]]] = ..., kept: _Optional[int] = ...) -> None: ...

class KeptBuild(_message.Message):
    __slots__ = ("build_id", "tenant", "principal", "client_version", "reported_at", "summary", "is_proved")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORTED_AT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    IS_PROVED_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    tenant: str
    principal: str
    client_version: str
    reported_at: float
    summary: BuildSummary
    is_proved: bool
    def __init__(self, build_id: _Optional[str] = ..., tenant: _Optional[str] = ..., principal: _Optional[str] = ..., client_version: _Optional[str] = ..., reported_at: _Optional[float] = ..., summary: _Optional[_Union[BuildSummary, _Mapping]] = ..., is_proved: _Optional[bool] = ...) -> None: ...
