"""A compiler's description: what a host reports, and what a guest reports about its image.

Both are hostile input. They affect messages to a person and whether a compile is offered to a farm.
They never affect whether a result is trusted: keys hold the image's digest.
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

Family = Literal["gcc", "clang", "msvc", "clang-cl", "clang-tidy", "cppcheck"]
ANALYSERS: Final = ("clang-tidy", "cppcheck")
"""They compile nothing, and earlier releases do not know them: messages list them apart."""
FAMILIES: Final = ("gcc", "clang", "msvc", "clang-cl", *ANALYSERS)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
_VERSION: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}")
_TARGET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """One compiler or analyser. `names` are the names it is called by: `gcc`, `cc`, `gcc-14`.

    `version` is complete (`14.2.0`; for cl.exe `_MSC_FULL_VER`). `build` is the distributor's text
    beside it. `headers` are (directory, SHA-256) of what the compiler reads there for the probe
    with the number `probe`; empty if unknown. An analyser has one digest of all that it reads.
    """

    names: tuple[str, ...]
    family: Family
    version: str
    target: str
    build: str = ""
    probe: int = 0
    headers: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        """Reject values that could mislead a reader or have no bound."""
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
        """The number that differs between compilers of one kind: `_MSC_VER`, or the first one."""
        parts = self.version.split(".")
        return ".".join(parts[: 2 if self.family in {"msvc", "clang-cl"} else 1])

    def __str__(self) -> str:
        build = f" ({self.build})" if self.build else ""
        return f"{self.family} {self.version}{build} for {self.target}"


@dataclass(frozen=True, slots=True)
class ImageToolchains:
    """The compilers that a probe found in an image; empty if it has none."""

    image: ImageDigest
    compilers: tuple[Toolchain, ...]


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a client sends at session start: the image it will request, and its own compilers."""

    image: ImageRef
    compilers: tuple[Toolchain, ...]


def toolchain_table(toolchain: Toolchain) -> dict[str, object]:
    """Return a toolchain in its JSON form."""
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
    """Return toolchains as JSON, the input of `parse_toolchains`."""
    return json.dumps([toolchain_table(t) for t in toolchains], separators=(",", ":"))


def parse_toolchains(raw: str | bytes) -> tuple[Toolchain, ...]:
    """Return the toolchains in JSON from an untrusted peer.

    Raises:
        CallerError: another form than that of `encode_toolchains`, or too large.
    """
    if len(raw) > MAX_TOOLCHAINS_BYTES:
        raise _malformed()
    try:
        return toolchains_of(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise _malformed() from error


def toolchains_of(content: object) -> tuple[Toolchain, ...]:
    """Return the toolchains in a list of `toolchain_table` values.

    Raises:
        CallerError: another form, or too large.
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
