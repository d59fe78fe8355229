"""Compares a host's compiler with an image's, and decides what follows from a difference. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from hpcc.core.names import ImageRef
from hpcc.core.toolchain import Toolchain

Fallback = Literal["never", "warn", "quiet"]
Parity = Literal["refuse", "warn", "ignore"]
LocalSlots = Literal["exact", "any", "off"]
# The strictest first.
FALLBACKS: Final[tuple[Fallback, ...]] = ("never", "warn", "quiet")
PARITIES: Final[tuple[Parity, ...]] = ("refuse", "warn", "ignore")
LOCAL_SLOTS: Final[tuple[LocalSlots, ...]] = ("exact", "any", "off")
_MAX_NAMED: Final = 4
_SHORT_DIGEST: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPolicy:
    """A policy for clients. None means no preference, and then the other side's value counts."""

    fallback: Fallback | None = None
    parity: Parity | None = None

    def stricter(self, *, fallback: Fallback, parity: Parity) -> tuple[Fallback, Parity]:
        """Return the effective values when both a tenant and its user have set some.

        The order is `never`, `warn`, `quiet`, and `refuse`, `warn`, `ignore`.
        """
        return (
            min(self.fallback or fallback, fallback, key=FALLBACKS.index),
            min(self.parity or parity, parity, key=PARITIES.index),
        )


class Level(StrEnum):
    """How much two compilers differ."""

    # One side is not known. This never refuses a compile.
    UNKNOWN = "unknown"
    EXACT = "exact"
    HEADERS = "headers"
    MINOR = "minor"
    OTHER = "other"

    @property
    def differs(self) -> bool:
        return self not in {Level.UNKNOWN, Level.EXACT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison. `image` is None if the image has no compiler of this name.

    `directories` are those whose headers differ, in the host's spelling.
    """

    name: str
    level: Level
    host: Toolchain | None
    image: Toolchain | None
    others: tuple[Toolchain, ...] = ()
    directories: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether both compilers and what was compared of their headers are the same.

        `Level.EXACT` alone also stands for headers of which one side told nothing.
        """
        host, image = self.host, self.image
        if self.level is not Level.EXACT or host is None or image is None:
            return False
        return host.probe == image.probe and bool(host.headers and image.headers)

    @property
    def is_alike(self) -> bool:
        """Whether they are exactly the same and have all headers in the same directories."""
        host, image = self.host, self.image
        if host is None or image is None:
            return False
        return self.is_exact and host.headers == image.headers


def compare(name: str, host: Toolchain | None, image: Sequence[Toolchain] | None) -> Finding:
    """Compare the host's compiler called `name` with the one of that name in an image.

    A different family, target or first number of the version makes them `other` compilers. A
    difference in the rest of the version or in the distributor's build is `minor`. Otherwise the
    standard headers are compared. Of several with this name, as an image for Windows can have, a
    compile names one by its directory. Only Microsoft's directories are named after the version, so
    the most similar of its compilers counts, and else the least similar one.
    """
    others = tuple(image or ())
    named = [t for t in others if name in t.names]
    choose = max if all(t.family == "msvc" for t in named) else min
    there = choose(named, key=lambda t: _likeness(host, t), default=None)
    directories: tuple[str, ...] = ()
    if host is None or image is None:
        level = Level.UNKNOWN
    elif there is None or _kind(host) != _kind(there):
        level = Level.OTHER
    elif (host.version, host.build) != (there.version, there.build):
        level = Level.MINOR
    else:
        directories = _differing(host, there)
        level = Level.HEADERS if directories else Level.EXACT
    return Finding(
        name=name, level=level, host=host, image=there, others=others, directories=directories
    )


def sentence(finding: Finding, image: ImageRef) -> str:
    """Return a sentence on both sides and on what makes them equal; "" if they are equal."""
    if not finding.level.differs or finding.host is None:
        return ""
    name, here = finding.name, finding.host
    where = f"image {image.repository}@{image.digest.value[: len('sha256:') + _SHORT_DIGEST]}"
    if finding.image is None:
        known = ", ".join(f"{t.names[0]}: {t}" for t in finding.others[:_MAX_NAMED])
        text = f"{name} here is {here}, and {where} has no compiler called {name}"
        text += f" (it has {known})" if known else " (it has no compiler that answers)"
        return f"{text}: {_remedy('call one that it has, or ', here)}"
    there = finding.image
    if finding.level is Level.HEADERS:
        names = ", ".join(finding.directories[:_MAX_NAMED])
        text = f"{name} is {here} here and in {where}, but headers differ: {names}"
        return (
            f"{text}: {_remedy('install the same releases of the C and C++ libraries, or ', here)}"
        )
    text = f"{name} here is {here}, {name} of {where} is {there}"
    if here.family == there.family and here.target == there.target:
        mend = f"install {_package(name, there)} here, or "
    else:
        mend = f"call {there.family} {there.major} for {there.target} here, or "
    return f"{text}: {_remedy(mend, here)}"


def unknown_sentence(name: str, image: ImageRef) -> str:
    """Return why a compiler was not compared although the farm has the image."""
    where = f"image {image.repository}@{image.digest.value[: len('sha256:') + _SHORT_DIGEST]}"
    return (
        f"{name} here was not compared with {where}: its compilers are unknown, no worker has got"
        " an answer to every question yet. The compile goes to the farm, and the next session"
        " asks the scheduler again"
    )


def _remedy(first: str, here: Toolchain) -> str:
    return (
        f'{first}use an image with {here.family} {here.version}, or set parity = "warn" '
        "(remote.parity in hpcc.toml; of a farm, its operator in the tenants table)"
    )


def _package(name: str, there: Toolchain) -> str:
    """Return the package to install: each major release has its own package name."""
    if there.family not in {"gcc", "clang"}:
        return str(there)
    plain = "g++" if name.endswith("++") and there.family == "gcc" else there.family
    build = f" ({there.build})" if there.build else ""
    return f"{plain}-{there.major} {there.version}{build}"


def _kind(toolchain: Toolchain) -> tuple[str, str, str]:
    return toolchain.family, toolchain.target, toolchain.major


def _likeness(host: Toolchain | None, image: Toolchain) -> tuple[bool, bool, bool]:
    if host is None:
        return False, False, False
    is_kind = _kind(host) == _kind(image)
    return is_kind, is_kind and host.version == image.version, host.build == image.build


def _differing(host: Toolchain, image: Toolchain) -> tuple[str, ...]:
    """Return the host's directories whose content the image lacks, and those only in the image."""
    if host.probe != image.probe or not host.headers or not image.headers:
        return ()
    ours, theirs = (Counter(d for _, d in t.headers) for t in (host, image))
    named = [directory for directory, digest in host.headers if digest not in theirs]
    named += [directory for directory, digest in image.headers if digest not in ours]
    if not named and ours != theirs:
        named = [directory for directory, _ in host.headers]
    return tuple(dict.fromkeys(named))
