"""A prepared image and the JSON file beside it. Pure: values and text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcc.core import Digest, HpccError, ImageDigest, ImageRef, IntegrityError
from hpcc.images.assembly.erofs import BUILDER_VERSION, ErofsImage
from hpcc.images.oci.source import FetchedImage

MAX_SIDECAR_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image that a guest can boot from: a read-only file whose size is a multiple of 4096.

    `digest` is the requested digest and the identity. `manifest_digest` differs from it if an
    index was requested. `sha256` covers the file at `path`. `dropped` counts what the image had
    and a guest does not get (devices, setuid bits). `source` is a text for people. Times are
    seconds since the epoch.
    """

    digest: ImageDigest
    manifest_digest: ImageDigest
    repository: str
    path: Path
    size_bytes: int
    sha256: str
    env: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    layers: tuple[Digest, ...]
    dropped: tuple[tuple[str, int], ...]
    counts: tuple[tuple[str, int], ...]
    source: str
    created_at: float
    last_used_at: float = field(default=0.0, compare=False)

    @property
    def ref(self) -> ImageRef:
        """Return repository and digest."""
        return ImageRef(self.repository, self.digest)

    def label(self, name: str) -> str:
        """Return the label's value, or "" if there is no such label."""
        return dict(self.labels).get(name, "")


def prepared_from(
    ref: ImageRef, fetched: FetchedImage, built: ErofsImage, *, path: Path, created_at: float
) -> PreparedImage:
    """Combine the results of fetch and build."""
    return PreparedImage(
        digest=ref.digest,
        manifest_digest=fetched.manifest_digest,
        repository=ref.repository,
        path=path,
        size_bytes=built.size_bytes,
        sha256=built.sha256,
        env=fetched.config.env,
        labels=fetched.config.labels,
        layers=tuple(layer.digest for layer in fetched.layers),
        dropped=built.dropped,
        counts=built.counts,
        source=fetched.source,
        created_at=created_at,
        last_used_at=created_at,
    )


def to_table(image: PreparedImage) -> dict[str, object]:
    """Return the sidecar's content, which `hpcc image inspect` also prints."""
    return {
        "builder_version": BUILDER_VERSION,
        "reference": str(image.ref),
        "digest": image.digest.value,
        "manifest_digest": image.manifest_digest.value,
        "erofs_sha256": image.sha256,
        "size_bytes": image.size_bytes,
        "layers": [str(layer) for layer in image.layers],
        "env": [list(pair) for pair in image.env],
        "labels": dict(image.labels),
        "dropped": dict(image.dropped),
        "counts": dict(image.counts),
        "source": image.source,
        "created_at": image.created_at,
    }


def from_json(raw: bytes, *, path: Path, last_used_at: float) -> PreparedImage:
    """Parse a sidecar. `path` is the image file that it describes.

    Raises:
        IntegrityError: it is damaged, too large, or of another builder version.
    """
    try:
        table: Any = json.loads(raw) if len(raw) <= MAX_SIDECAR_BYTES else None
        ref = ImageRef.parse(table["reference"])
        if table["builder_version"] != BUILDER_VERSION or ref.digest.value != table["digest"]:
            raise ValueError("other builder or digest")  # noqa: TRY301 - one handler for all damage
        return PreparedImage(
            digest=ref.digest,
            manifest_digest=ImageDigest(table["manifest_digest"]),
            repository=ref.repository,
            path=path,
            size_bytes=int(table["size_bytes"]),
            sha256=ImageDigest(f"sha256:{table['erofs_sha256']}").hex,
            env=tuple((str(k), str(v)) for k, v in table["env"]),
            labels=_pairs(table["labels"], str),
            layers=tuple(Digest.parse(text) for text in table["layers"]),
            dropped=_pairs(table["dropped"], int),
            counts=_pairs(table["counts"], int),
            source=str(table["source"]),
            created_at=float(table["created_at"]),
            last_used_at=last_used_at,
        )
    except (
        ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, HpccError
    ) as error:  # fmt: skip
        raise IntegrityError(
            f"{path}: its description is damaged", reason="image-damaged"
        ) from error


def _pairs[T](table: dict[str, object], kind: type[T]) -> tuple[tuple[str, T], ...]:
    return tuple((str(key), kind(value)) for key, value in table.items())  # type: ignore[call-arg]  # str and int take one
