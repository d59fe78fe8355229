from hpcc._proto import observe_pb2 as _observe_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DrainState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRAIN_STATE_UNSPECIFIED: _ClassVar[DrainState]
    DRAIN_STATE_DRAINING: _ClassVar[DrainState]
    DRAIN_STATE_DRAINED: _ClassVar[DrainState]
DRAIN_STATE_UNSPECIFIED: DrainState
DRAIN_STATE_DRAINING: DrainState
DRAIN_STATE_DRAINED: DrainState

class AuthenticateRequest(_message.Message):
    __slots__ = ("tenant", "principal", "client_version", "host")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    principal: str
    client_version: str
    host: HostReport
    def __init__(self, tenant: _Optional[str] = ..., principal: _Optional[str] = ..., client_version: _Optional[str] = ..., host: _Optional[_Union[HostReport, _Mapping]] = ...) -> None: ...

class AuthenticateResponse(_message.Message):
    __slots__ = ("session", "expires_at", "policy", "image", "scheduler_certificates")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    session: str
    expires_at: float
    policy: ClientPolicy
    image: ImageToolchains
    scheduler_certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session: _Optional[str] = ..., expires_at: _Optional[float] = ..., policy: _Optional[_Union[ClientPolicy, _Mapping]] = ..., image: _Optional[_Union[ImageToolchains, _Mapping]] = ..., scheduler_certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Toolchain(_message.Message):
    __slots__ = ("names", "family", "version", "build", "target", "probe", "headers")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    family: str
    version: str
    build: str
    target: str
    probe: int
    headers: _containers.RepeatedCompositeFieldContainer[HeaderDigest]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., family: _Optional[str] = ..., version: _Optional[str] = ..., build: _Optional[str] = ..., target: _Optional[str] = ..., probe: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[HeaderDigest, _Mapping]]] = ...) -> None: ...

class HeaderDigest(_message.Message):
    __slots__ = ("directory", "sha256")
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    directory: str
    sha256: bytes
    def __init__(self, directory: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class HostReport(_message.Message):
    __slots__ = ("image", "compilers")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COMPILERS_FIELD_NUMBER: _ClassVar[int]
    image: str
    compilers: _containers.RepeatedCompositeFieldContainer[Toolchain]
    def __init__(self, image: _Optional[str] = ..., compilers: _Optional[_Iterable[_Union[Toolchain, _Mapping]]] = ...) -> None: ...

class ImageToolchains(_message.Message):
    __slots__ = ("image", "compilers", "analysers")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COMPILERS_FIELD_NUMBER: _ClassVar[int]
    ANALYSERS_FIELD_NUMBER: _ClassVar[int]
    image: str
    compilers: _containers.RepeatedCompositeFieldContainer[Toolchain]
    analysers: _containers.RepeatedCompositeFieldContainer[Toolchain]
    def __init__(self, image: _Optional[str] = ..., compilers: _Optional[_Iterable[_Union[Toolchain, _Mapping]]] = ..., analysers: _Optional[_Iterable[_Union[Toolchain, _Mapping]]] = ...) -> None: ...

class ClientPolicy(_message.Message):
    __slots__ = ("fallback", "parity")
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    fallback: str
    parity: str
    def __init__(self, fallback: _Optional[str] = ..., parity: _Optional[str] = ...) -> None: ...

class RouteRequest(_message.Message):
    __slots__ = ("tenant", "image", "minimum_isolation", "failed_generation", "client_key", "preferred_worker", "last_worker", "wanted", "warm_workers")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_ISOLATION_FIELD_NUMBER: _ClassVar[int]
    FAILED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_WORKER_FIELD_NUMBER: _ClassVar[int]
    LAST_WORKER_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    WARM_WORKERS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    image: str
    minimum_isolation: str
    failed_generation: int
    client_key: bytes
    preferred_worker: str
    last_worker: str
    wanted: int
    warm_workers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., image: _Optional[str] = ..., minimum_isolation: _Optional[str] = ..., failed_generation: _Optional[int] = ..., client_key: _Optional[bytes] = ..., preferred_worker: _Optional[str] = ..., last_worker: _Optional[str] = ..., wanted: _Optional[int] = ..., warm_workers: _Optional[_Iterable[str]] = ...) -> None: ...

class RouteResponse(_message.Message):
    __slots__ = ("endpoint", "worker_certificate", "token", "token_expires_at", "generation", "isolation", "worker_id", "principal", "guest_reuse", "minimum_isolation", "slots", "more", "store", "has_others", "sharing", "packs")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    WORKER_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    GUEST_REUSE_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_ISOLATION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    HAS_OTHERS_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PACKS_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    worker_certificate: bytes
    token: str
    token_expires_at: float
    generation: int
    isolation: str
    worker_id: str
    principal: str
    guest_reuse: str
    minimum_isolation: str
    slots: int
    more: _containers.RepeatedCompositeFieldContainer[RouteResponse]
    store: str
    has_others: bool
    sharing: str
    packs: bool
    def __init__(self, endpoint: _Optional[str] = ..., worker_certificate: _Optional[bytes] = ..., token: _Optional[str] = ..., token_expires_at: _Optional[float] = ..., generation: _Optional[int] = ..., isolation: _Optional[str] = ..., worker_id: _Optional[str] = ..., principal: _Optional[str] = ..., guest_reuse: _Optional[str] = ..., minimum_isolation: _Optional[str] = ..., slots: _Optional[int] = ..., more: _Optional[_Iterable[_Union[RouteResponse, _Mapping]]] = ..., store: _Optional[str] = ..., has_others: _Optional[bool] = ..., sharing: _Optional[str] = ..., packs: _Optional[bool] = ...) -> None: ...

class WatchRoutesRequest(_message.Message):
    __slots__ = ("tenant", "takes_several")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TAKES_SEVERAL_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    takes_several: bool
    def __init__(self, tenant: _Optional[str] = ..., takes_several: _Optional[bool] = ...) -> None: ...

class RouteEvent(_message.Message):
    __slots__ = ("kind", "worker_id", "generation")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[RouteEvent.Kind]
        KIND_LIVE: _ClassVar[RouteEvent.Kind]
        KIND_DEAD: _ClassVar[RouteEvent.Kind]
        KIND_ASK: _ClassVar[RouteEvent.Kind]
    KIND_UNSPECIFIED: RouteEvent.Kind
    KIND_LIVE: RouteEvent.Kind
    KIND_DEAD: RouteEvent.Kind
    KIND_ASK: RouteEvent.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    kind: RouteEvent.Kind
    worker_id: str
    generation: int
    def __init__(self, kind: _Optional[_Union[RouteEvent.Kind, str]] = ..., worker_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("worker_id", "endpoint", "certificate", "isolation", "images", "capacity", "result_key", "toolchains", "generation", "token_format", "store", "is_draining")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RESULT_KEY_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAINS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FORMAT_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    endpoint: str
    certificate: bytes
    isolation: str
    images: _containers.RepeatedScalarFieldContainer[str]
    capacity: int
    result_key: WorkerResultKey
    toolchains: _containers.RepeatedCompositeFieldContainer[ImageToolchains]
    generation: int
    token_format: int
    store: str
    is_draining: bool
    def __init__(self, worker_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., certificate: _Optional[bytes] = ..., isolation: _Optional[str] = ..., images: _Optional[_Iterable[str]] = ..., capacity: _Optional[int] = ..., result_key: _Optional[_Union[WorkerResultKey, _Mapping]] = ..., toolchains: _Optional[_Iterable[_Union[ImageToolchains, _Mapping]]] = ..., generation: _Optional[int] = ..., token_format: _Optional[int] = ..., store: _Optional[str] = ..., is_draining: _Optional[bool] = ...) -> None: ...

class WorkerResultKey(_message.Message):
    __slots__ = ("public_key", "proof", "is_announced")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    IS_ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    proof: bytes
    is_announced: bool
    def __init__(self, public_key: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., is_announced: _Optional[bool] = ...) -> None: ...

class ResultKeysRequest(_message.Message):
    __slots__ = ("tenant", "key_ids")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    KEY_IDS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    key_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., key_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ResultKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[TokenKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[TokenKey, _Mapping]]] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("token_keys", "generation", "lease_seconds", "scheduler_id", "audience")
    TOKEN_KEYS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    token_keys: _containers.RepeatedCompositeFieldContainer[TokenKey]
    generation: int
    lease_seconds: float
    scheduler_id: str
    audience: str
    def __init__(self, token_keys: _Optional[_Iterable[_Union[TokenKey, _Mapping]]] = ..., generation: _Optional[int] = ..., lease_seconds: _Optional[float] = ..., scheduler_id: _Optional[str] = ..., audience: _Optional[str] = ...) -> None: ...

class TokenKey(_message.Message):
    __slots__ = ("kid", "public_key")
    KID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    kid: str
    public_key: bytes
    def __init__(self, kid: _Optional[str] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class LeaseSharesRequest(_message.Message):
    __slots__ = ("worker_id", "asks")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    asks: _containers.RepeatedCompositeFieldContainer[ShareAsk]
    def __init__(self, worker_id: _Optional[str] = ..., asks: _Optional[_Iterable[_Union[ShareAsk, _Mapping]]] = ...) -> None: ...

class ShareAsk(_message.Message):
    __slots__ = ("tenant", "principal", "wanted", "held")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    principal: str
    wanted: int
    held: int
    def __init__(self, tenant: _Optional[str] = ..., principal: _Optional[str] = ..., wanted: _Optional[int] = ..., held: _Optional[int] = ...) -> None: ...

class LeaseSharesResponse(_message.Message):
    __slots__ = ("grants", "seconds", "renew_seconds")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    RENEW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[ShareGrant]
    seconds: float
    renew_seconds: float
    def __init__(self, grants: _Optional[_Iterable[_Union[ShareGrant, _Mapping]]] = ..., seconds: _Optional[float] = ..., renew_seconds: _Optional[float] = ...) -> None: ...

class ShareGrant(_message.Message):
    __slots__ = ("tenant", "principal", "places")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    principal: str
    places: int
    def __init__(self, tenant: _Optional[str] = ..., principal: _Optional[str] = ..., places: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("worker_id", "generation", "running", "queued", "audit", "drain", "drain_seconds", "tree", "facts", "events")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    DRAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    generation: int
    running: int
    queued: int
    audit: AuditAnchor
    drain: DrainState
    drain_seconds: float
    tree: AuditTree
    facts: WorkerFacts
    events: _containers.RepeatedCompositeFieldContainer[_observe_pb2.SeenEvent]
    def __init__(self, worker_id: _Optional[str] = ..., generation: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., audit: _Optional[_Union[AuditAnchor, _Mapping]] = ..., drain: _Optional[_Union[DrainState, str]] = ..., drain_seconds: _Optional[float] = ..., tree: _Optional[_Union[AuditTree, _Mapping]] = ..., facts: _Optional[_Union[WorkerFacts, _Mapping]] = ..., events: _Optional[_Iterable[_Union[_observe_pb2.SeenEvent, _Mapping]]] = ...) -> None: ...

class AuditTree(_message.Message):
    __slots__ = ("checkpoint", "public_key", "after", "proof")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    public_key: bytes
    after: AuditTreeMark
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, checkpoint: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., after: _Optional[_Union[AuditTreeMark, _Mapping]] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AuditTreeMark(_message.Message):
    __slots__ = ("size", "root")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    size: int
    root: bytes
    def __init__(self, size: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class WorkerFacts(_message.Message):
    __slots__ = ("version", "up_seconds", "load", "store_bytes", "store_limit_bytes", "wait_p95_seconds", "waits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_P95_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    up_seconds: float
    load: float
    store_bytes: int
    store_limit_bytes: int
    wait_p95_seconds: float
    waits: int
    def __init__(self, version: _Optional[str] = ..., up_seconds: _Optional[float] = ..., load: _Optional[float] = ..., store_bytes: _Optional[int] = ..., store_limit_bytes: _Optional[int] = ..., wait_p95_seconds: _Optional[float] = ..., waits: _Optional[int] = ...) -> None: ...

class DrainOrder(_message.Message):
    __slots__ = ("seconds", "by", "reason")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    by: str
    reason: str
    def __init__(self, seconds: _Optional[float] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AuditAnchor(_message.Message):
    __slots__ = ("count", "head", "at", "public_key", "signature")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    count: int
    head: str
    at: float
    public_key: bytes
    signature: bytes
    def __init__(self, count: _Optional[int] = ..., head: _Optional[str] = ..., at: _Optional[float] = ..., public_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("token_keys", "generation", "lease_seconds", "replace_result_key", "scheduler_certificates", "drain", "audit_tree")
    TOKEN_KEYS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_RESULT_KEY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    AUDIT_TREE_FIELD_NUMBER: _ClassVar[int]
    token_keys: _containers.RepeatedCompositeFieldContainer[TokenKey]
    generation: int
    lease_seconds: float
    replace_result_key: str
    scheduler_certificates: _containers.RepeatedScalarFieldContainer[bytes]
    drain: DrainOrder
    audit_tree: AuditTreeMark
    def __init__(self, token_keys: _Optional[_Iterable[_Union[TokenKey, _Mapping]]] = ..., generation: _Optional[int] = ..., lease_seconds: _Optional[float] = ..., replace_result_key: _Optional[str] = ..., scheduler_certificates: _Optional[_Iterable[bytes]] = ..., drain: _Optional[_Union[DrainOrder, _Mapping]] = ..., audit_tree: _Optional[_Union[AuditTreeMark, _Mapping]] = ...) -> None: ...

class SandboxLostRequest(_message.Message):
    __slots__ = ("worker_id", "generation", "guest_id", "reason")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    generation: int
    guest_id: str
    reason: str
    def __init__(self, worker_id: _Optional[str] = ..., generation: _Optional[int] = ..., guest_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SandboxLostResponse(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class DeregisterRequest(_message.Message):
    __slots__ = ("worker_id",)
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    def __init__(self, worker_id: _Optional[str] = ...) -> None: ...

class DeregisterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("worker_id", "certificate_request")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    certificate_request: bytes
    def __init__(self, worker_id: _Optional[str] = ..., certificate_request: _Optional[bytes] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("certificate", "expires_at", "worker_port")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    WORKER_PORT_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    expires_at: float
    worker_port: int
    def __init__(self, certificate: _Optional[bytes] = ..., expires_at: _Optional[float] = ..., worker_port: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("certificate", "expires_at")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    expires_at: float
    def __init__(self, certificate: _Optional[bytes] = ..., expires_at: _Optional[float] = ...) -> None: ...
