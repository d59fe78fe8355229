"""OCI image layouts on disk: reads hostile directories, and writes new ones.

Format: OCI image specification 1.1, "Image Layout".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, Digest, ImageDigest, ImageRef, IntegrityError, NotFoundError
from hpcc.images.base.limits import MAX_MANIFEST_BYTES
from hpcc.images.oci.blobfile import LayerFile, checked_read, open_blob
from hpcc.images.oci.manifest import (
    OCI_INDEX,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
    Index,
    parse_manifest,
)
from hpcc.images.oci.source import FetchedImage, Progress, resolve

_VERSION_FILE: Final = "oci-layout"


@dataclass(frozen=True, slots=True)
class OciLayout:
    """The layout directory at `path`. Every byte is checked before it is used."""

    path: Path

    async def fetch(self, ref: ImageRef, blobs: Path, progress: Progress) -> FetchedImage:
        """See `ImageSource.fetch`. Layers are read in place and not copied into `blobs`."""
        del blobs
        progress("resolve", 0, 0)
        self._check()
        source = f"layout {self.path}"
        manifest_digest, manifest, config = await resolve(ref.digest, self, source=source)
        return FetchedImage(
            digest=ref.digest,
            manifest_digest=manifest_digest,
            config=config,
            layers=tuple(
                LayerFile(self.blob_path(d.digest.hash), d.digest) for d in manifest.layers
            ),
            source=source,
        )

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the descriptors in index.json.

        Raises:
            CallerError: the directory is not a layout.
            IntegrityError: the index is malformed.
        """
        self._check()
        raw = self._read_small(self.path / "index.json")
        found = parse_manifest(raw, source=f"{self.path}/index.json")
        if not isinstance(found, Index):
            raise IntegrityError(
                f"{self.path}/index.json is not an index", reason="manifest-malformed"
            )
        return found.manifests

    def find(self, name: str = "") -> ImageDigest:
        """Return the digest of the image called `name`, or of the only image.

        Raises:
            NotFoundError: there is no such name, or there are several images and no name is given.
        """
        found = self.descriptors()
        named = [d for d in found if not name or d.ref_name == name]
        if len(named) == 1:
            return named[0].image_digest
        have = ", ".join(d.ref_name[:60] or d.image_digest.value for d in found[:20])
        raise NotFoundError(
            f"{self.path} holds {len(named)} images called {name!r}; it has: {have or 'none'}"
            if name
            else f"{self.path} holds {len(found)} images; name one of: {have or 'none'}",
            reason="image-not-found",
        )

    async def manifest(self, digest: ImageDigest) -> bytes:
        """Read a manifest by digest. Its size is bounded, because the digest does not have it.

        Raises:
            NotFoundError: the layout does not have it.
            IntegrityError: it does not match the digest, or is too large.
        """
        raw = await asyncio.to_thread(self._read_small, self.blob_path(digest.hex))
        if hashlib.sha256(raw).hexdigest() != digest.hex:
            raise IntegrityError(
                f"layout {self.path}: the content of {digest} does not match it",
                reason="digest-mismatch",
            )
        return raw

    async def config(self, descriptor: Descriptor) -> bytes:
        """Read an image config; raises as `checked_read`."""
        return await asyncio.to_thread(
            checked_read,
            self.blob_path(descriptor.digest.hash),
            descriptor.digest,
            limit_bytes=MAX_MANIFEST_BYTES,
        )

    def blob_path(self, sha256: str) -> Path:
        """Return the path of a blob. `sha256` comes from a checked digest, so it is plain hex."""
        return self.path / "blobs" / "sha256" / sha256

    def _check(self) -> None:
        try:
            raw = self._read_small(self.path / _VERSION_FILE)
            version = json.loads(raw)["imageLayoutVersion"]
        except (NotFoundError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CallerError(
                f"{self.path} is not an OCI image layout (no usable {_VERSION_FILE} file)",
                reason="not-a-layout",
            ) from error
        if not str(version).startswith("1."):
            raise CallerError(
                f"{self.path}: layout version {str(version)[:20]!r} is not supported",
                reason="not-a-layout",
            )

    @staticmethod
    def _read_small(path: Path) -> bytes:
        with open(open_blob(path), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            raw = file.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise IntegrityError(
                f"{path} is larger than {MAX_MANIFEST_BYTES} bytes", reason="manifest-too-large"
            )
        return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLayer:
    """A layer blob that is already in the layout's blob directory.

    `diff_id` is the digest of the uncompressed tar, as `sha256:…`.
    """

    media_type: str
    digest: Digest
    diff_id: str


def blob_directory(layout: Path) -> Path:
    """Create the directories of a new layout; return the one for blobs."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs


def write_layout(
    layout: Path,
    *,
    name: str,
    architecture: str,
    layers: tuple[NewLayer, ...],
    env: tuple[str, ...],
    labels: dict[str, str],
) -> ImageDigest:
    """Write config, manifest and index for layers in place; return the manifest's digest.

    Equal inputs give equal bytes.
    """
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": list(env), "Cmd": ["/bin/sh"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": "hpcc"} for _ in layers],
    }
    config_type = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _put(layout, config, config_type),
        "layers": [_pointer(one.media_type, one.digest) for one in layers],
    }
    pointer = _put(layout, manifest, OCI_MANIFEST)
    digest = ImageDigest(str(pointer["digest"]))
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                **pointer,
                "platform": {"architecture": architecture, "os": "linux"},
                "annotations": {REF_NAME: name},
            }
        ],
    }
    (layout / "index.json").write_bytes(_encode(index))
    (layout / _VERSION_FILE).write_bytes(_encode({"imageLayoutVersion": "1.0.0"}))
    return digest


def _put(layout: Path, value: object, media_type: str) -> dict[str, object]:
    data = _encode(value)
    digest = Digest.of(data)
    (blob_directory(layout) / digest.hash).write_bytes(data)
    return _pointer(media_type, digest)


def _pointer(media_type: str, digest: Digest) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{digest.hash}",
        "size": digest.size_bytes,
    }


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
