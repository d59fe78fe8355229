"""Writes a tar from a pipe as a zstd layer blob. Equal tars give equal bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import zstandard

from hpcc.core import CallerError, Digest
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.oci.layout import NewLayer
from hpcc.images.oci.manifest import OCI_LAYER_ZSTD
from hpcc.images.oci.source import Progress

# zstd's default: 3 % larger than level 9 for this content and five times as fast. With one
# thread, the bytes depend only on the pinned zstandard package.
_LEVEL: Final = 3
_CHUNK_BYTES: Final = 1 << 20
_REPORT_BYTES: Final = 16 << 20


def write_zstd_layer(read_fd: int, blobs: Path, progress: Progress) -> NewLayer:
    """Read a tar to its end and write it into `blobs` under its digest; closes `read_fd`.

    Raises:
        CallerError: the tar is larger than an image may unpack to.
    """
    raw, packed = hashlib.sha256(), hashlib.sha256()
    raw_bytes = packed_bytes = 0
    limit_bytes = FlattenLimits().stream_bytes
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=0).compressobj()
    partial = blobs / "layer.part"
    with os.fdopen(read_fd, "rb", buffering=0) as source, partial.open("wb") as out:
        is_open = True
        while is_open:
            data = source.read(_CHUNK_BYTES)
            is_open = bool(data)
            raw.update(data)
            if raw_bytes // _REPORT_BYTES != (raw_bytes + len(data)) // _REPORT_BYTES:
                progress("packing the layer", raw_bytes, 0)
            raw_bytes += len(data)
            if raw_bytes > limit_bytes:
                raise CallerError(
                    f"the packages take more than {limit_bytes} bytes", reason="image-too-large"
                )
            piece = compressor.compress(data) if is_open else compressor.flush()
            packed.update(piece)
            packed_bytes += len(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    digest = Digest(packed.hexdigest(), packed_bytes)
    partial.rename(blobs / digest.hash)
    return NewLayer(media_type=OCI_LAYER_ZSTD, digest=digest, diff_id=f"sha256:{raw.hexdigest()}")
