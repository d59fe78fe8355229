"""Converts compilers between messages and values. Everything that a peer sent is checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, cast

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import (
    ANALYSERS,
    FALLBACKS,
    MAX_TOOLCHAINS,
    PARITIES,
    CallerError,
    ClientPolicy,
    Family,
    HostReport,
    ImageDigest,
    ImageRef,
    ImageToolchains,
    Toolchain,
)

_MAX_IMAGES: Final = 1024
_MAX_REPORT_BYTES: Final = 64 << 10
_MAX_IMAGES_BYTES: Final = 4 << 20


def toolchain_message(toolchain: Toolchain) -> pb.Toolchain:
    """Build the message of one compiler."""
    return pb.Toolchain(
        names=toolchain.names,
        family=toolchain.family,
        version=toolchain.version,
        build=toolchain.build,
        target=toolchain.target,
        probe=toolchain.probe,
        headers=[
            pb.HeaderDigest(directory=name, sha256=bytes.fromhex(digest))
            for name, digest in toolchain.headers
        ],
    )


def _toolchains(messages: Iterable[pb.Toolchain]) -> tuple[Toolchain, ...]:
    return tuple(
        Toolchain(
            names=tuple(m.names),
            family=cast("Family", m.family),  # checked by Toolchain
            version=m.version,
            build=m.build,
            target=m.target,
            probe=m.probe,
            headers=tuple((h.directory, h.sha256.hex()) for h in m.headers),
        )
        for m in messages
    )


def report_message(report: HostReport | None) -> pb.HostReport | None:
    """Build the message of a client's compilers; None without a report, or if it is too long.

    A scheduler would drop it, or refuse the login.
    """
    if report is None:
        return None
    message = pb.HostReport(
        image=str(report.image), compilers=[toolchain_message(t) for t in report.compilers]
    )
    return message if message.ByteSize() <= _MAX_REPORT_BYTES else None


def report_or_none(message: pb.HostReport) -> HostReport | None:
    """Parse a client's report of its compilers; None if it is malformed or over 64 KiB.

    A bad report must not make the login fail.
    """
    if message.ByteSize() > _MAX_REPORT_BYTES or len(message.compilers) > MAX_TOOLCHAINS:
        return None
    try:
        return HostReport(ImageRef.parse(message.image), _toolchains(message.compilers))
    except CallerError:
        return None


def image_message(found: ImageToolchains) -> pb.ImageToolchains:
    """Build the message of an image's compilers and analysers."""
    message = pb.ImageToolchains(image=found.image.value)
    for toolchain in found.compilers:
        is_analyser = toolchain.family in ANALYSERS
        kind = message.analysers if is_analyser else message.compilers
        kind.append(toolchain_message(toolchain))
    return message


def image_or_none(message: pb.ImageToolchains) -> ImageToolchains | None:
    """Parse the compilers of an image; None (unknown) if they are malformed or too many."""
    if len(message.compilers) + len(message.analysers) > MAX_TOOLCHAINS:
        return None
    try:
        found = _toolchains((*message.compilers, *message.analysers))
        return ImageToolchains(ImageDigest(message.image), found)
    except CallerError:
        return None


def images_of(messages: Collection[pb.ImageToolchains]) -> tuple[ImageToolchains, ...]:
    """Parse a worker's report of its images.

    Malformed entries are dropped. All are dropped over 1024 images or 4 MiB.
    """
    if len(messages) > _MAX_IMAGES or sum(m.ByteSize() for m in messages) > _MAX_IMAGES_BYTES:
        return ()
    return tuple(found for m in messages if (found := image_or_none(m)) is not None)


def policy_message(policy: ClientPolicy) -> pb.ClientPolicy:
    """Build the message of a tenant's rules for clients."""
    return pb.ClientPolicy(fallback=policy.fallback or "", parity=policy.parity or "")


def policy_of(message: pb.ClientPolicy) -> ClientPolicy:
    """Parse a policy; a setting with an unknown value, as of a newer scheduler, is unset."""
    return ClientPolicy(
        fallback=next((word for word in FALLBACKS if word == message.fallback), None),
        parity=next((word for word in PARITIES if word == message.parity), None),
    )
