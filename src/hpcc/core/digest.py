"""Digests and blobs: bytes named by their SHA-256 and size."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from hpcc.core.errors import CallerError, IntegrityError

_HEX: Final = re.compile(r"[0-9a-f]{64}")
# Larger than any object file. Keeps a hostile size out of arithmetic and headers.
MAX_BLOB_BYTES: Final = 1 << 40


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """SHA-256 of some bytes, in lower-case hex, and their count. Always valid."""

    hash: str
    size_bytes: int

    def __post_init__(self) -> None:
        """Reject anything but a SHA-256 and a sane size."""
        if not _HEX.fullmatch(self.hash):
            raise CallerError(f"not a SHA-256 in lower-case hex: {self.hash[:80]!r}")
        if not 0 <= self.size_bytes <= MAX_BLOB_BYTES:
            raise CallerError(f"digest size out of range: {self.size_bytes}")

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        return cls(hashlib.sha256(data).hexdigest(), len(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest in `HASH/SIZE`, the form of `str()`.

        Raises:
            CallerError: the text is anything else.
        """
        name, slash, size = text.partition("/")
        if not slash or not size.isascii() or not size.isdigit() or len(size) > 13:  # noqa: PLR2004 - digits of MAX_BLOB_BYTES
            raise CallerError(f"not a digest of the form HASH/SIZE: {text[:100]!r}")
        return cls(name, int(size))

    def __str__(self) -> str:
        return f"{self.hash}/{self.size_bytes}"


EMPTY_DIGEST: Final = Digest.of(b"")


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with their verified digest. Only `of` and `checked` create one."""

    digest: Digest
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(Digest.of(data), data)

    @classmethod
    def checked(cls, digest: Digest, data: bytes) -> Self:
        """Return bytes from outside as a blob, after checking them against their digest.

        Raises:
            IntegrityError: they do not match it.
        """
        if len(data) != digest.size_bytes or hashlib.sha256(data).hexdigest() != digest.hash:
            raise IntegrityError(
                f"bytes do not match digest {digest}: got {len(data)} bytes",
                reason="digest-mismatch",
            )
        return cls(digest, data)
