"""Limits of images, each with the reason for its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# The distribution specification advises registries to accept, and so to send, at most this size.
MAX_MANIFEST_BYTES: Final = 4 << 20
# Docker allows 127 layers; more are a mistake or an attack on the tree builder.
MAX_LAYERS: Final = 128
# Compressed size of one layer; the largest public toolchain images stay below 5 GiB.
MAX_LAYER_BYTES: Final = 8 << 30
# GNU tar and Go write at most two or three of these before a member.
MAX_EXTENDED_HEADERS: Final = 8
# An extended header holds a path of at most `path_bytes` and some attributes.
MAX_EXTENDED_HEADER_BYTES: Final = 1 << 20
# The most that zstd decompresses without a special flag. A larger window would only take memory.
MAX_ZSTD_WINDOW_BYTES: Final = 1 << 27


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenLimits:
    """Bounds of one image's tree and stream.

    `entries` counts tar members over all layers (Debian with gcc: 9,000), `stream_bytes`
    uncompressed bytes over all layers, `depth` path components. `symlink_bytes`, `name_bytes`,
    `path_bytes` and `symlink_hops` are the limits of the Linux kernel.
    """

    entries: int = 200_000
    stream_bytes: int = 8 << 30
    name_bytes: int = 255
    path_bytes: int = 4096
    depth: int = 128
    symlink_bytes: int = 4095
    symlink_hops: int = 40
