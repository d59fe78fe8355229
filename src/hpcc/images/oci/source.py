"""The interface of image sources, and the steps that all of them share."""

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

# The specification allows any depth of indexes. In practice there is one level.
_MAX_INDEX_DEPTH: Final = 2
# Arguments: stage ("resolve", "download", "build"), bytes done, bytes in total; 0, 0 if unknown.
type Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedImage:
    """An image whose blobs are on this machine; manifest and config are checked.

    `digest` is the requested digest. `manifest_digest` is the manifest for this architecture; it
    differs if `digest` names an index. `layers` are bottom first; their bytes are checked when
    they are read. `source` describes the origin for people.
    """

    digest: ImageDigest
    manifest_digest: ImageDigest
    config: ImageConfig
    layers: tuple[LayerFile, ...]
    source: str


class ImageSource(Protocol):
    """A registry or a directory that has images."""

    async def fetch(self, ref: ImageRef, blobs: Path, progress: Progress) -> FetchedImage:
        """Bring the image's blobs to this machine; downloads go into the directory `blobs`.

        Raises:
            NotFoundError: the source does not have the image.
            IntegrityError: the source sent bytes that do not match the digest, or malformed ones.
            CallerError: access is refused, or the image is not usable on this machine.
            InfrastructureError: the source cannot be reached.
        """
        ...


class BlobReader(Protocol):
    """Reads small blobs of one source, checked against their digests.

    Its methods raise as `ImageSource.fetch`.
    """

    async def manifest(self, digest: ImageDigest) -> bytes:
        """Return a manifest or an index."""
        ...

    async def config(self, descriptor: Descriptor) -> bytes:
        """Return an image config."""
        ...


async def resolve(
    digest: ImageDigest, reader: BlobReader, *, source: str
) -> tuple[ImageDigest, Manifest, ImageConfig]:
    """Follow `digest` to the manifest for this architecture, and read its config.

    Raises:
        CallerError: there is no image for this machine, or its format is not supported.
        IntegrityError: a manifest or the config is malformed.
        HpccError: `reader` failed.
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
