"""Parses OCI manifests, indexes and configs. Pure: bytes in, values or an error out.

Formats: OCI image specification 1.1; Docker "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError, Digest, ImageDigest, IntegrityError
from hpcc.images.base.limits import MAX_LAYER_BYTES, MAX_LAYERS, MAX_MANIFEST_BYTES

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
_LAYER_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        OCI_LAYER_ZSTD,
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
)
REF_NAME: Final = "org.opencontainers.image.ref.name"
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "amd64": "amd64", "arm64": "arm64"}
_MAX_STRINGS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A pointer to a blob, with the digest checked for its form."""

    media_type: str
    digest: Digest
    architecture: str = ""
    os: str = ""
    ref_name: str = ""

    @property
    def image_digest(self) -> ImageDigest:
        """Return the digest as `sha256:…`."""
        return ImageDigest(f"sha256:{self.digest.hash}")


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests for several platforms."""

    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The parts of an image's config that hpcc uses."""

    env: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]


def host_architecture() -> str:
    """Return this machine's architecture by its OCI name."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def parse_manifest(raw: bytes, *, source: str) -> Index | Manifest:
    """Parse a manifest or an index. `source` names its origin in error texts.

    Raises:
        IntegrityError: it is malformed, or over a limit.
        CallerError: hpcc does not support its format.
    """
    table = _object(raw, source)
    if table.get("schemaVersion") != 2:  # noqa: PLR2004 - the version both specifications fix
        raise CallerError(
            f"{source}: image format {str(table.get('schemaVersion'))[:20]!r} is not supported; "
            "push the image again with a current tool",
            reason="image-format",
        )
    media_type = table.get("mediaType", "")
    if media_type in _INDEXES or (not media_type and "manifests" in table):
        return Index(tuple(_descriptors(table.get("manifests"), source, MAX_MANIFEST_BYTES)))
    layers = tuple(_descriptors(table.get("layers"), source, MAX_LAYER_BYTES))
    if not 0 < len(layers) <= MAX_LAYERS:
        raise CallerError(
            f"{source}: {len(layers)} layers; between 1 and {MAX_LAYERS} are accepted",
            reason="image-format",
        )
    for layer in layers:
        if layer.media_type not in _LAYER_TYPES:
            raise CallerError(
                f"{source}: layer type {layer.media_type[:100]!r} is not supported "
                "(plain, gzip or zstd tar)",
                reason="image-format",
            )
    return Manifest(_descriptor(table.get("config"), source, MAX_MANIFEST_BYTES), layers)


def pick_platform(index: Index, *, architecture: str, source: str) -> Descriptor:
    """Return the manifest for linux on `architecture`.

    Raises:
        CallerError: there is no such manifest; the text lists the platforms of the index.
    """
    for found in index.manifests:
        if found.os == "linux" and found.architecture == architecture:
            return found
    # A layout that was written for one machine often names no platform.
    bare = [d for d in index.manifests if not d.os and not d.architecture]
    if len(bare) == 1 and len(index.manifests) == 1:
        return bare[0]
    have = ", ".join(sorted({f"{d.os}/{d.architecture}"[:40] for d in index.manifests})[:10])
    raise CallerError(
        f"{source}: no image for linux/{architecture}; there is {have or 'nothing'}",
        reason="no-platform",
    )


def parse_config(raw: bytes, *, architecture: str, source: str) -> ImageConfig:
    """Parse an image config.

    Raises:
        IntegrityError: it is malformed.
        CallerError: the image is for another platform.
    """
    table = _object(raw, source)
    platform_name = f"{table.get('os', 'linux')}/{table.get('architecture', architecture)}"[:60]
    if platform_name != f"linux/{architecture}":
        raise CallerError(
            f"{source}: the image is for {platform_name}, this machine is linux/{architecture}",
            reason="no-platform",
        )
    run = table.get("config") or {}
    if not isinstance(run, dict):
        raise _malformed(source, "config is not an object")
    env = run.get("Env") or []
    labels = run.get("Labels") or {}
    if not isinstance(env, list) or not isinstance(labels, dict):
        raise _malformed(source, "Env or Labels has another type")
    pairs = [item.partition("=") for item in _strings(env, source)]
    return ImageConfig(
        env=tuple((name, value) for name, _, value in pairs if name),
        labels=tuple(
            zip(_strings(labels.keys(), source), _strings(labels.values(), source), strict=True)
        ),
    )


def check_size(raw: bytes, source: str) -> None:
    """Check the size of a manifest.

    Raises:
        IntegrityError: it is over `MAX_MANIFEST_BYTES`.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise IntegrityError(
            f"{source}: a manifest of more than {MAX_MANIFEST_BYTES} bytes",
            reason="manifest-too-large",
        )


def _object(raw: bytes, source: str) -> Mapping[str, object]:
    check_size(raw, source)
    try:
        table = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _malformed(source, "not JSON") from error
    if not isinstance(table, dict):
        raise _malformed(source, "no JSON object")
    return table


def _descriptors(value: object, source: str, limit_bytes: int) -> Iterable[Descriptor]:
    if not isinstance(value, list) or len(value) > _MAX_STRINGS:
        raise _malformed(source, "no list of descriptors where one belongs")
    return (_descriptor(item, source, limit_bytes) for item in value)


def _descriptor(value: object, source: str, limit_bytes: int) -> Descriptor:
    if not isinstance(value, dict):
        raise _malformed(source, "a descriptor is not an object")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise _malformed(source, f"a digest that is not a sha256: {str(digest)[:80]!r}")
    if type(size) is not int or not 0 <= size <= limit_bytes:
        raise _malformed(source, f"a blob of {str(size)[:30]} bytes (limit {limit_bytes})")
    target = value.get("platform") or {}
    notes = value.get("annotations") or {}
    if not isinstance(target, dict) or not isinstance(notes, dict):
        raise _malformed(source, "a descriptor has a platform or annotations of another type")
    return Descriptor(
        media_type=str(value.get("mediaType", "")),
        digest=Digest(digest.removeprefix("sha256:"), size),
        architecture=str(target.get("architecture", "")),
        os=str(target.get("os", "")),
        ref_name=str(notes.get(REF_NAME, "")),
    )


def _strings(values: Iterable[object], source: str) -> list[str]:
    found = list(values)
    if len(found) > _MAX_STRINGS or not all(isinstance(v, str) for v in found):
        raise _malformed(source, "Env or Labels holds something else than strings")
    return [str(v) for v in found]


def _malformed(source: str, what: str) -> IntegrityError:
    return IntegrityError(f"{source}: {what}", reason="manifest-malformed")
