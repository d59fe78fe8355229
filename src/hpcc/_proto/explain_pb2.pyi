from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ("instance_name", "action")
    INSTANCE_NAME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    instance_name: str
    action: str
    def __init__(self, instance_name: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("shared", "accepts", "disagreement", "nearest")
    SHARED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_FIELD_NUMBER: _ClassVar[int]
    DISAGREEMENT_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    shared: str
    accepts: str
    disagreement: Disagreement
    nearest: Nearest
    def __init__(self, shared: _Optional[str] = ..., accepts: _Optional[str] = ..., disagreement: _Optional[_Union[Disagreement, _Mapping]] = ..., nearest: _Optional[_Union[Nearest, _Mapping]] = ...) -> None: ...

class Disagreement(_message.Message):
    __slots__ = ("decision", "is_other", "outputs", "section")
    class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DECISION_UNSPECIFIED: _ClassVar[Disagreement.Decision]
        OPEN: _ClassVar[Disagreement.Decision]
        REPEATED: _ClassVar[Disagreement.Decision]
        RANDOM: _ClassVar[Disagreement.Decision]
    DECISION_UNSPECIFIED: Disagreement.Decision
    OPEN: Disagreement.Decision
    REPEATED: Disagreement.Decision
    RANDOM: Disagreement.Decision
    DECISION_FIELD_NUMBER: _ClassVar[int]
    IS_OTHER_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    decision: Disagreement.Decision
    is_other: bool
    outputs: _containers.RepeatedScalarFieldContainer[str]
    section: str
    def __init__(self, decision: _Optional[_Union[Disagreement.Decision, str]] = ..., is_other: _Optional[bool] = ..., outputs: _Optional[_Iterable[str]] = ..., section: _Optional[str] = ...) -> None: ...

class Nearest(_message.Message):
    __slots__ = ("at", "sharing", "is_other_directory", "is_other_environment", "flags", "is_reordered", "paths", "more_paths", "equal", "only_here", "only_there")
    AT_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    IS_OTHER_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    IS_OTHER_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    IS_REORDERED_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    MORE_PATHS_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    ONLY_HERE_FIELD_NUMBER: _ClassVar[int]
    ONLY_THERE_FIELD_NUMBER: _ClassVar[int]
    at: int
    sharing: str
    is_other_directory: bool
    is_other_environment: bool
    flags: _containers.RepeatedScalarFieldContainer[str]
    is_reordered: bool
    paths: _containers.RepeatedScalarFieldContainer[str]
    more_paths: int
    equal: int
    only_here: int
    only_there: int
    def __init__(self, at: _Optional[int] = ..., sharing: _Optional[str] = ..., is_other_directory: _Optional[bool] = ..., is_other_environment: _Optional[bool] = ..., flags: _Optional[_Iterable[str]] = ..., is_reordered: _Optional[bool] = ..., paths: _Optional[_Iterable[str]] = ..., more_paths: _Optional[int] = ..., equal: _Optional[int] = ..., only_here: _Optional[int] = ..., only_there: _Optional[int] = ...) -> None: ...
