from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExecuteExtras(_message.Message):
    __slots__ = ("blobs", "only_end")
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    ONLY_END_FIELD_NUMBER: _ClassVar[int]
    blobs: _containers.RepeatedCompositeFieldContainer[InlineBlob]
    only_end: bool
    def __init__(self, blobs: _Optional[_Iterable[_Union[InlineBlob, _Mapping]]] = ..., only_end: _Optional[bool] = ...) -> None: ...

class InlineBlob(_message.Message):
    __slots__ = ("sha256", "size_bytes", "data", "base_sha256", "base_size_bytes", "prefix_bytes", "suffix_bytes")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    BASE_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BYTES_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_BYTES_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size_bytes: int
    data: bytes
    base_sha256: bytes
    base_size_bytes: int
    prefix_bytes: int
    suffix_bytes: int
    def __init__(self, sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., base_sha256: _Optional[bytes] = ..., base_size_bytes: _Optional[int] = ..., prefix_bytes: _Optional[int] = ..., suffix_bytes: _Optional[int] = ...) -> None: ...
