"""Reads layer blobs: checks digests and decompresses within a budget."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import zstandard

from hpcc.core import CallerError, Digest, InfrastructureError, IntegrityError, NotFoundError
from hpcc.images.base.limits import MAX_ZSTD_WINDOW_BYTES
from hpcc.images.base.tar import Readable

_CHUNK_BYTES: Final = 1 << 18
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A layer blob on disk, and its digest in the manifest. The bytes are hostile."""

    path: Path
    digest: Digest


class ByteBudget:
    """Limits the uncompressed bytes of all layers in one pass. It stops tar bombs."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    @property
    def spent_bytes(self) -> int:
        """Return the bytes spent so far."""
        return self._limit_bytes - self._left_bytes

    def spend(self, count: int) -> None:
        """Subtract `count` bytes.

        Raises:
            IntegrityError: the budget is used up.
        """
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise IntegrityError(
                f"the image unpacks to more than {self._limit_bytes} bytes: refused as a tar bomb",
                reason="image-too-large",
            )


class _Hashed:
    """Reads a blob's file, and hashes and counts the bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.sha256 = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = os.read(self._fd, size if 0 <= size <= _CHUNK_BYTES else _CHUNK_BYTES)
        except OSError as error:
            raise InfrastructureError(
                f"a layer cannot be read: {error.strerror}", reason="disk"
            ) from error
        self.sha256.update(data)
        self.count += len(data)
        return data


class _Budgeted:
    def __init__(self, source: Readable, budget: ByteBudget, label: str) -> None:
        self._source, self._budget, self._label = source, budget, label

    def read(self, size: int, /) -> bytes:
        try:
            data = self._source.read(size)
        except EOFError as error:
            raise IntegrityError(
                f"{self._label}: the compressed data ends too early: it was truncated",
                reason="layer-truncated",
            ) from error
        except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise IntegrityError(
                f"{self._label}: the compressed data is damaged", reason="layer-damaged"
            ) from error
        self._budget.spend(len(data))
        return data


def open_blob(path: Path) -> int:
    """Open a blob in a hostile directory; return its descriptor.

    Raises:
        NotFoundError: the file does not exist.
        IntegrityError: it is a symlink, or not a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there", reason="blob-missing") from error
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be opened as a plain file: {error.strerror}", reason="blob-not-a-file"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise IntegrityError(f"{path} is not a regular file", reason="blob-not-a-file")
    return fd


@contextmanager
def open_layer(layer: LayerFile, budget: ByteBudget) -> Iterator[Readable]:
    """Yield a reader of the layer's uncompressed bytes.

    Leaving the block checks the whole blob's digest.

    Raises:
        IntegrityError: the layer is damaged, truncated, over budget, or does not match its digest.
            A wrong digest is reported in place of other damage, because it explains that damage.
    """
    label = f"layer sha256:{layer.digest.hash[:12]}"
    fd = open_blob(layer.path)
    try:
        if (size := os.fstat(fd).st_size) != layer.digest.size_bytes:
            raise IntegrityError(
                f"{label}: {size} bytes long where its manifest says {layer.digest.size_bytes}: "
                "it was truncated or replaced",
                reason="digest-mismatch",
            )
        source = _Hashed(fd)
        try:
            content = _Budgeted(_decompressed(source, fd), budget, label)
            yield content
            # A tar may end before its compressed stream, whose checksum is at the end.
            while content.read(_CHUNK_BYTES):
                pass
        except IntegrityError as error:
            if error.reason not in {"image-too-large", "too-many-entries"}:
                _check_digest(source, layer, label)
            raise
        _check_digest(source, layer, label)
    finally:
        os.close(fd)


def _decompressed(source: _Hashed, fd: int) -> Readable:
    magic = os.pread(fd, 4, 0)
    if magic[:2] == _GZIP_MAGIC:
        return gzip.GzipFile(fileobj=cast("IO[bytes]", source), mode="rb")  # uses only `read`
    if magic == _ZSTD_MAGIC:
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        # This also uses only `read`.
        return unpacker.stream_reader(
            cast("IO[bytes]", source), read_across_frames=True, closefd=False
        )
    return source


def _check_digest(source: _Hashed, layer: LayerFile, label: str) -> None:
    limit = layer.digest.size_bytes
    while source.count <= limit and source.read(_CHUNK_BYTES):
        pass
    if source.count != limit or source.sha256.hexdigest() != layer.digest.hash:
        raise IntegrityError(
            f"{label}: its bytes are not those its digest names", reason="digest-mismatch"
        )


def checked_read(path: Path, digest: Digest, *, limit_bytes: int) -> bytes:
    """Read a whole small blob (manifest, config) and check its digest.

    Raises:
        NotFoundError: the file does not exist.
        CallerError: the digest's size is over `limit_bytes`.
        IntegrityError: it is not a regular file, or does not match the digest.
    """
    if digest.size_bytes > limit_bytes:
        raise CallerError(
            f"sha256:{digest.hash[:12]} claims {digest.size_bytes} bytes; at most {limit_bytes} "
            "are accepted here",
            reason="blob-too-large",
        )
    fd = open_blob(path)
    with os.fdopen(fd, "rb") as file:
        data = file.read(digest.size_bytes + 1)
    if len(data) != digest.size_bytes or hashlib.sha256(data).hexdigest() != digest.hash:
        raise IntegrityError(
            f"{path}: its bytes are not those its digest names", reason="digest-mismatch"
        )
    return data


@contextmanager
def open_archive(path: Path, budget: ByteBudget) -> Iterator[Readable]:
    """Yield a reader of the uncompressed bytes of a tar without a digest.

    Raises:
        NotFoundError: the file does not exist.
        IntegrityError: it is not a regular file, is damaged, or is over budget.
    """
    fd = open_blob(path)
    try:
        yield _Budgeted(_decompressed(_Hashed(fd), fd), budget, str(path))
    finally:
        os.close(fd)
