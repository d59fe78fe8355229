"""Where images come from: one small interface, and what all sources share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import CallerError, ImageDigest, ImageRef
from hpcc.images.oci.blobfile import LayerFile
from hpcc.images.oci.manifest import (
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    host_architecture,
    parse_config,
    parse_manifest,
    pick_platform,
)

# The specification allows more, and nobody writes more than one.
_MAX_INDEX_DEPTH: Final = 2
# stage ("resolve", "download", "build"), done, total; the unit is bytes, 0 of 0 if unknown.
type Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedImage:
    """An image whose blobs are on this machine; manifest and config are checked.

    `digest` is what was asked for, `manifest_digest` what it led to on this architecture
    (the same unless `digest` names an index). Layer bytes are checked when they are read.
    """

    digest: ImageDigest
    manifest_digest: ImageDigest
    config: ImageConfig
    layers: tuple[LayerFile, ...]
    source: str


class ImageSource(Protocol):
    """A place that has images."""

    async def fetch(self, ref: ImageRef, blobs: Path, progress: Progress) -> FetchedImage:
        """Bring the image's blobs to this machine; downloads go into the directory `blobs`.

        Raises:
            NotFoundError: it has no such image.
            IntegrityError: it gives other bytes than the digest names.
            CallerError: the image, or the right to it, is not there for us.
            InfrastructureError: it cannot be reached.
        """
        ...


class BlobReader(Protocol):
    """How one source reads a small blob whole, checked against its digest."""

    async def manifest(self, digest: ImageDigest) -> bytes: ...

    async def config(self, descriptor: Descriptor) -> bytes: ...


async def resolve(
    digest: ImageDigest, reader: BlobReader, *, source: str
) -> tuple[ImageDigest, Manifest, ImageConfig]:
    """Follow `digest` to this machine's manifest and read its config.

    Raises:
        CallerError: no image for this machine, or a format hpcc does not read.
        IntegrityError: malformed.
    """
    architecture = host_architecture()
    where = f"{source}@{digest.value[:19]}"
    found = parse_manifest(await reader.manifest(digest), source=where)
    for _ in range(_MAX_INDEX_DEPTH):
        if isinstance(found, Manifest):
            break
        picked = pick_platform(found, architecture=architecture, source=where)
        digest = picked.image_digest
        found = parse_manifest(await reader.manifest(digest), source=where)
    if isinstance(found, Index):
        raise CallerError(f"{where}: too many indexes within indexes", reason="image-format")
    config = parse_config(
        await reader.config(found.config), architecture=architecture, source=where
    )
    return digest, found, config
