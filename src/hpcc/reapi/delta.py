"""Blobs as differences from a base that the peer has: the bytes between a common start and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcc.core import Blob, Digest
from hpcc.reapi.limits import ReapiError

# Limits of one call: the number of blobs, and the bytes of their contents and bases.
MAX_INLINE_BLOBS: Final = 64
MAX_INLINE_BYTES: Final = 4 << 20
_REASON: Final = "inline-blobs"


@dataclass(frozen=True, slots=True)
class Delta:
    """The content of `digest`: `prefix_bytes` of `base`, then `data`, then `suffix_bytes` of it.

    Without a `base` the content is `data`.
    """

    digest: Digest
    data: bytes
    base: Digest | None = None
    prefix_bytes: int = 0
    suffix_bytes: int = 0


def make_delta(digest: Digest, data: bytes, base: Digest, old: bytes) -> Delta:
    """Return `data` as a difference from `old`, the content of `base`."""
    prefix = common_prefix(data, old)
    suffix = _common_end(data[prefix:], old[prefix:])
    return Delta(digest, data[prefix : len(data) - suffix], base, prefix, suffix)


def common_prefix(one: bytes, other: bytes) -> int:
    """Return the length of the common prefix: the offset of the first difference.

    A binary search compares slices at memory speed.
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def check_deltas(deltas: tuple[Delta, ...]) -> None:
    """Check deltas of a hostile peer, before any base is read.

    Raises:
        ReapiError: there are too many, they are too large, or a size is not the sum of its parts.
    """
    if len(deltas) > MAX_INLINE_BLOBS:
        raise ReapiError(f"more than {MAX_INLINE_BLOBS} blobs in one call", reason=_REASON)
    total = sum(d.digest.size_bytes + (d.base.size_bytes if d.base else 0) for d in deltas)
    if total > MAX_INLINE_BYTES:
        raise ReapiError(f"blobs of {total} bytes in one call", reason=_REASON)
    for delta in deltas:
        shared = delta.prefix_bytes + delta.suffix_bytes
        if shared > (delta.base.size_bytes if delta.base else 0):
            raise ReapiError("a blob takes more of its base than there is", reason=_REASON)
        if shared + len(delta.data) != delta.digest.size_bytes:
            raise ReapiError("a blob's parts are not its size", reason=_REASON)


def apply_delta(delta: Delta, base: bytes = b"") -> Blob:
    """Build the blob of a delta that passed `check_deltas`, and check its digest.

    Raises:
        ReapiError: the content does not match the digest.
    """
    end = len(base) - delta.suffix_bytes
    data = b"".join((base[: delta.prefix_bytes], delta.data, base[end:]))
    blob = Blob.of(data)
    if blob.digest != delta.digest:
        raise ReapiError("a blob is not what its digest says", reason=_REASON)
    return blob
