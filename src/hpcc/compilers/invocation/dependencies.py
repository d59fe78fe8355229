"""How a local compile's files become known, by compiler and by the flags that the user gave.

| user gives | compiler | way |
| --- | --- | --- |
| no depfile | both | `-MD` into a private file |
| no depfile | a Clang that records its command line | a second run with `-M` |
| `-MD` | both | the user's own file, which names every file |
| `-MMD` | GCC, no `-g` or the like | `-H` (headers on stderr, removed again) and the user's file |
| `-MMD` | GCC, `-g` | a second run with `-M` (`-H` would be named in DW_AT_producer) |
| `-MMD` | Clang | a second run with `-M` (its `-H` changes the user's file) |
| any | both, source without preprocessing | none: its own text names what else is read |
| nothing | cppcheck | none: every name in a text that it may read is looked up (`Unlisted`) |
| nothing | clang-cl | `/clang:-MD` into a private file; with debug information a second run |
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple


class Way(enum.Enum):
    """The rows of the table above."""

    PRIVATE_FILE = "private-file"
    USER_FILE = "user-file"
    HEADERS = "headers"
    SECOND_RUN = "second-run"
    OWN_TEXT = "own-text"


class Headers(NamedTuple):
    """The headers that GCC's `-H` listed, and stderr without them."""

    names: tuple[bytes, ...]
    stderr: bytes
    has_pch: bool


class NamesInText(NamedTuple):
    """The (is quoted, name) pairs. `is_opaque`: the text may make it look for others, too."""

    names: frozenset[tuple[bool, bytes]]
    is_opaque: bool


class Unlisted(NamedTuple):
    """What a program that lists nothing may read besides its source. Names are as spelled.

    Quoted names are looked up beside the text that has them and in `directories`, others only in
    these; no directory keeps a `..`. `forced` are further texts. `data` are files that are read as
    they are, or need not exist. None of `forbidden` may exist. `read` finds the names in a text.
    """

    directories: tuple[bytes, ...]
    forced: tuple[bytes, ...]
    data: tuple[bytes, ...]
    forbidden: tuple[bytes, ...]
    read: Callable[[bytes], NamesInText]


class Recording(enum.Enum):
    """Whether the object will contain every flag of its compile.

    ASK: some builds of the compiler do so without such a flag, and one test compile shows which.
    """

    NEVER = "never"
    ALWAYS = "always"
    ASK = "ask"
