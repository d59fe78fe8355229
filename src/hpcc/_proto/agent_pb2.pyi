from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientFrame(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: Header
    chunk: InputChunk
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., chunk: _Optional[_Union[InputChunk, _Mapping]] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("exec_id", "argv", "env", "cwd", "inputs", "outputs", "limits", "traceparent", "guest", "output_directories", "input_directories", "blobs")
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    INPUT_DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    exec_id: str
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedCompositeFieldContainer[Variable]
    cwd: str
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    traceparent: str
    guest: Guest
    output_directories: _containers.RepeatedScalarFieldContainer[str]
    input_directories: _containers.RepeatedScalarFieldContainer[str]
    blobs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, exec_id: _Optional[str] = ..., argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., cwd: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., outputs: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., traceparent: _Optional[str] = ..., guest: _Optional[_Union[Guest, _Mapping]] = ..., output_directories: _Optional[_Iterable[str]] = ..., input_directories: _Optional[_Iterable[str]] = ..., blobs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Variable(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("path", "digest", "size_bytes", "is_executable")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    path: str
    digest: bytes
    size_bytes: int
    is_executable: bool
    def __init__(self, path: _Optional[str] = ..., digest: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., is_executable: _Optional[bool] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("wall_seconds", "memory_bytes", "pids", "output_bytes", "stdio_bytes")
    WALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STDIO_BYTES_FIELD_NUMBER: _ClassVar[int]
    wall_seconds: float
    memory_bytes: int
    pids: int
    output_bytes: int
    stdio_bytes: int
    def __init__(self, wall_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., pids: _Optional[int] = ..., output_bytes: _Optional[int] = ..., stdio_bytes: _Optional[int] = ...) -> None: ...

class Guest(_message.Message):
    __slots__ = ("guest_id", "wall_time_ns", "entropy")
    GUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WALL_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    guest_id: str
    wall_time_ns: int
    entropy: bytes
    def __init__(self, guest_id: _Optional[str] = ..., wall_time_ns: _Optional[int] = ..., entropy: _Optional[bytes] = ...) -> None: ...

class InputChunk(_message.Message):
    __slots__ = ("digest", "data", "last")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    data: bytes
    last: bool
    def __init__(self, digest: _Optional[bytes] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class ServerFrame(_message.Message):
    __slots__ = ("need", "stdio", "result", "output")
    NEED_FIELD_NUMBER: _ClassVar[int]
    STDIO_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    need: Need
    stdio: Stdio
    result: Result
    output: OutputChunk
    def __init__(self, need: _Optional[_Union[Need, _Mapping]] = ..., stdio: _Optional[_Union[Stdio, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., output: _Optional[_Union[OutputChunk, _Mapping]] = ...) -> None: ...

class Need(_message.Message):
    __slots__ = ("digests", "more")
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    digests: _containers.RepeatedScalarFieldContainer[bytes]
    more: bool
    def __init__(self, digests: _Optional[_Iterable[bytes]] = ..., more: _Optional[bool] = ...) -> None: ...

class Stdio(_message.Message):
    __slots__ = ("stream", "data")
    class Stream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STREAM_UNSPECIFIED: _ClassVar[Stdio.Stream]
        STREAM_STDOUT: _ClassVar[Stdio.Stream]
        STREAM_STDERR: _ClassVar[Stdio.Stream]
    STREAM_UNSPECIFIED: Stdio.Stream
    STREAM_STDOUT: Stdio.Stream
    STREAM_STDERR: Stdio.Stream
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    stream: Stdio.Stream
    data: bytes
    def __init__(self, stream: _Optional[_Union[Stdio.Stream, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("exit_code", "signal", "reason", "wall_seconds", "user_seconds", "system_seconds", "max_rss_bytes", "stage_seconds", "detail")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Result.Reason]
        REASON_ENDED: _ClassVar[Result.Reason]
        REASON_DEADLINE: _ClassVar[Result.Reason]
        REASON_NO_SUCH_PROGRAM: _ClassVar[Result.Reason]
        REASON_STDIO_LIMIT: _ClassVar[Result.Reason]
        REASON_OUTPUT_LIMIT: _ClassVar[Result.Reason]
        REASON_MEMORY: _ClassVar[Result.Reason]
        REASON_AGENT_ERROR: _ClassVar[Result.Reason]
        REASON_OUTPUT_TREE: _ClassVar[Result.Reason]
    REASON_UNSPECIFIED: Result.Reason
    REASON_ENDED: Result.Reason
    REASON_DEADLINE: Result.Reason
    REASON_NO_SUCH_PROGRAM: Result.Reason
    REASON_STDIO_LIMIT: Result.Reason
    REASON_OUTPUT_LIMIT: Result.Reason
    REASON_MEMORY: Result.Reason
    REASON_AGENT_ERROR: Result.Reason
    REASON_OUTPUT_TREE: Result.Reason
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    USER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    STAGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    exit_code: int
    signal: int
    reason: Result.Reason
    wall_seconds: float
    user_seconds: float
    system_seconds: float
    max_rss_bytes: int
    stage_seconds: float
    detail: str
    def __init__(self, exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., reason: _Optional[_Union[Result.Reason, str]] = ..., wall_seconds: _Optional[float] = ..., user_seconds: _Optional[float] = ..., system_seconds: _Optional[float] = ..., max_rss_bytes: _Optional[int] = ..., stage_seconds: _Optional[float] = ..., detail: _Optional[str] = ...) -> None: ...

class OutputChunk(_message.Message):
    __slots__ = ("path", "data", "is_executable", "last")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    path: str
    data: bytes
    is_executable: bool
    last: bool
    def __init__(self, path: _Optional[str] = ..., data: _Optional[bytes] = ..., is_executable: _Optional[bool] = ..., last: _Optional[bool] = ...) -> None: ...
