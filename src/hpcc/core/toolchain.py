"""A compiler as it describes itself: what a host reports, and what a guest says of its image.

Both are hostile input. They decide what a person is told and whether a compile is offered to a
farm, never whether a result is trusted: keys hold the image's digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from hpcc.core.errors import CallerError
from hpcc.core.names import ImageDigest, ImageRef

MAX_TOOLCHAINS: Final = 16
MAX_TOOLCHAINS_BYTES: Final = 128 << 10
MAX_COMPILER_NAMES: Final = 32
MAX_HEADER_DIGESTS: Final = 16
_MAX_BUILD_CHARS: Final = 128
_MAX_DIRECTORY_CHARS: Final = 256
_MAX_PROBE: Final = 1 << 16

Family = Literal["gcc", "clang", "msvc", "clang-cl"]
FAMILIES: Final = ("gcc", "clang", "msvc", "clang-cl")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
_VERSION: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}")
_TARGET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """One compiler. `names` are what it is called by: `gcc`, `cc`, `gcc-14`.

    `version` is all of it (`14.2.0`; of cl.exe `_MSC_FULL_VER`), `build` the distributor's words
    beside it. `headers` are (directory, SHA-256) of what the compiler reads there when it is given
    the probe with the number `probe`; no headers: they are not known.
    """

    names: tuple[str, ...]
    family: Family
    version: str
    target: str
    build: str = ""
    probe: int = 0
    headers: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what could mislead a reader or take room without end."""
        is_good = (
            0 < len(self.names) <= MAX_COMPILER_NAMES
            and all(map(_NAME.fullmatch, self.names))
            and self.family in FAMILIES
            and _VERSION.fullmatch(self.version) is not None
            and _TARGET.fullmatch(self.target) is not None
            and _is_text(self.build, _MAX_BUILD_CHARS)
            and 0 <= self.probe < _MAX_PROBE
            and len(self.headers) <= MAX_HEADER_DIGESTS
            and all(
                _is_text(directory, _MAX_DIRECTORY_CHARS) and _SHA256.fullmatch(digest)
                for directory, digest in self.headers
            )
        )
        if not is_good:
            raise _malformed()

    @property
    def major(self) -> str:
        """What no two compilers of one kind share: of cl.exe `_MSC_VER`, else the first number."""
        parts = self.version.split(".")
        return ".".join(parts[: 2 if self.family in {"msvc", "clang-cl"} else 1])

    def __str__(self) -> str:
        build = f" ({self.build})" if self.build else ""
        return f"{self.family} {self.version}{build} for {self.target}"


@dataclass(frozen=True, slots=True)
class ImageToolchains:
    """The compilers that a probe found in an image; none: it has no compiler."""

    image: ImageDigest
    compilers: tuple[Toolchain, ...]


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a client says at session start: the image it will ask for, and its own compilers."""

    image: ImageRef
    compilers: tuple[Toolchain, ...]


def toolchain_table(toolchain: Toolchain) -> dict[str, object]:
    """Return a toolchain as JSON spells it."""
    return {
        "names": list(toolchain.names),
        "family": toolchain.family,
        "version": toolchain.version,
        "build": toolchain.build,
        "target": toolchain.target,
        "probe": toolchain.probe,
        "headers": [list(pair) for pair in toolchain.headers],
    }


def encode_toolchains(toolchains: Sequence[Toolchain]) -> str:
    return json.dumps([toolchain_table(t) for t in toolchains], separators=(",", ":"))


def parse_toolchains(raw: str | bytes) -> tuple[Toolchain, ...]:
    """Read what `encode_toolchains` wrote, or somebody who pretends it.

    Raises:
        CallerError: it is anything else, or too much.
    """
    if len(raw) > MAX_TOOLCHAINS_BYTES:
        raise _malformed()
    try:
        return toolchains_of(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise _malformed() from error


def toolchains_of(content: object) -> tuple[Toolchain, ...]:
    """Read a list of `toolchain_table`.

    Raises:
        CallerError: it is anything else, or too much.
    """
    if not isinstance(content, list) or len(content) > MAX_TOOLCHAINS:
        raise _malformed()
    return tuple(map(_of_table, content))


def _of_table(table: object) -> Toolchain:
    if not isinstance(table, dict):
        raise _malformed()
    names, headers, probe = (table.get(n) for n in ("names", "headers", "probe"))
    words = tuple(table.get(n) for n in ("family", "version", "build", "target"))
    if (
        not isinstance(names, list)
        or not isinstance(headers, list)
        or type(probe) is not int
        or not all(isinstance(text, str) for text in (*names, *words))
        or not all(isinstance(p, list) and [type(x) for x in p] == [str, str] for p in headers)
    ):
        raise _malformed()
    family, version, build, target = cast("tuple[Family, str, str, str]", words)
    return Toolchain(
        names=tuple(names),
        family=family,
        version=version,
        build=build,
        target=target,
        probe=probe,
        headers=tuple((directory, digest) for directory, digest in headers),
    )


def _is_text(text: str, limit: int) -> bool:
    return len(text) <= limit and text.isascii() and (not text or text.isprintable())


def _malformed() -> CallerError:
    return CallerError("not a compiler's description", reason="toolchain")
