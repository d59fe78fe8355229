from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LookAnswer(_message.Message):
    __slots__ = ("result", "workers", "claims")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    workers: _containers.RepeatedScalarFieldContainer[str]
    claims: bytes
    def __init__(self, result: _Optional[bytes] = ..., workers: _Optional[_Iterable[str]] = ..., claims: _Optional[bytes] = ...) -> None: ...

class NoteRequest(_message.Message):
    __slots__ = ("instance_name", "made")
    INSTANCE_NAME_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    instance_name: str
    made: _containers.RepeatedCompositeFieldContainer[Made]
    def __init__(self, instance_name: _Optional[str] = ..., made: _Optional[_Iterable[_Union[Made, _Mapping]]] = ...) -> None: ...

class Made(_message.Message):
    __slots__ = ("sha256", "size_bytes", "worker")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size_bytes: int
    worker: str
    def __init__(self, sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., worker: _Optional[str] = ...) -> None: ...

class NoteAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UsedRequest(_message.Message):
    __slots__ = ("instance_name", "uses")
    INSTANCE_NAME_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    instance_name: str
    uses: _containers.RepeatedCompositeFieldContainer[Use]
    def __init__(self, instance_name: _Optional[str] = ..., uses: _Optional[_Iterable[_Union[Use, _Mapping]]] = ...) -> None: ...

class Use(_message.Message):
    __slots__ = ("sha256", "size_bytes", "result")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size_bytes: int
    result: bytes
    def __init__(self, sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., result: _Optional[bytes] = ...) -> None: ...

class UsedAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
