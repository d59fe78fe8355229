"""Encodes a kept hit, the file from which the launcher on Windows answers a request by itself.

native/kept_hit.h describes the bytes and has their parser; launcher/win_hit.h looks at the files.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.cache.base.manifest import Absence
from hpcc.cache.results.results import Result
from hpcc.cache.windows.disk import FileTimes

MAX_HIT_BYTES: Final = 80 << 20
MAX_CHECKS: Final = 1 << 16
_MAGIC: Final = 0x32687768
_FRONT: Final = struct.Struct("<2I")
_HEAD: Final = struct.Struct("<Q3I8I")
_CHECK: Final = struct.Struct("<2I")
_SIZE: Final = struct.Struct("<Q")
_STATE: Final = struct.Struct("<5Q")
_KIND: Final = struct.Struct("<I")
_NAMES: Final = struct.Struct("<2I")
_FILE, _STATE_KIND, _KIND_KIND, _LISTING, _LACKS, _REAL = range(1, 7)
_MASK: Final = (1 << 64) - 1
_NO_FILE, _NO_DIRECTORY = 1, 2


def file_check(path: str, size: int, digest: bytes) -> bytes:
    """The file has this size and SHA-256."""
    return _check(_FILE, path, _SIZE.pack(size) + digest)


def state_check(path: str, times: FileTimes) -> bytes:
    """The file or directory has these times, size and identity."""
    state = (times.written_ns, times.changed_ns, times.size, *times.identity)
    return _check(_STATE_KIND, path, _STATE.pack(*(number & _MASK for number in state)))


def kind_check(path: str, *, is_directory: bool | None) -> bytes:
    """At the path is nothing (None), a file or a directory; links are followed."""
    kind = 0 if is_directory is None else 1 + is_directory
    return _check(_KIND_KIND, path, _KIND.pack(kind))


def real_check(path: str, real: str) -> bytes:
    """The file or directory at the path is there, and this is its path without links."""
    data = real.encode()
    return _check(_REAL, path, _KIND.pack(len(data)) + data + b"\0")


def listing_check(path: str, entries: Mapping[str, bool]) -> bytes:
    """The directory has these entries, in the order in which the system lists them."""
    return _check(_LISTING, path, listing_digest(entries))


def listing_digest(entries: Mapping[str, bool]) -> bytes:
    """Return the digest of a directory's entries and of which are directories."""
    digest = hashlib.sha256()
    for name, is_directory in entries.items():
        digest.update(name.encode("utf-16-le", "surrogatepass"))
        digest.update(b"\0\0\1\0" if is_directory else b"\0\0\0\0")
    return digest.digest()


def lacks_check(absence: Absence) -> bytes:
    """The directory exists, and none of its entries has one of these names, as wide keys.

    Raises:
        ValueError: a name is none that a wide key can be.
    """
    bits = dict.fromkeys(absence.files, _NO_FILE)
    for name in absence.directories:
        bits[name] = bits.get(name, 0) | _NO_DIRECTORY
    if any(not name or not name.isascii() or name != name.lower() for name in bits):
        raise ValueError("not a wide key")
    text = b"".join(bytes([bits[name]]) + name + b"\0" for name in sorted(bits))
    return _check(_LACKS, absence.directory.decode(), _NAMES.pack(len(bits), len(text)) + text)


def encode_hit(
    number: int,
    languages: bytes,
    request: bytes,
    checks: Sequence[bytes],
    output: str,
    depfile: str,
    result: Result,
) -> bytes:
    """Return the file. The first check is that of the source's content; `depfile` may be "".

    Raises:
        ValueError: it would be larger than the launcher reads.
    """
    paths = [output.encode(), depfile.encode()]
    texts = (result.object_data, result.depfile or b"", result.stdout, result.stderr)
    sizes = (len(request), len(checks), *map(len, paths), *map(len, texts))
    head = _HEAD.pack(number, *map(int, languages.split()), *sizes)
    named = (path + b"\0" for path in paths if path)
    parts = (head, request, *checks, *named, *texts)
    digest = hashlib.sha256()
    size = _FRONT.size + digest.digest_size + sum(map(len, parts))
    if size > MAX_HIT_BYTES or len(checks) > MAX_CHECKS:
        raise ValueError("too large for the launcher")
    for part in parts:
        digest.update(part)
    return b"".join((_FRONT.pack(_MAGIC, size), digest.digest(), *parts))


def _check(kind: int, path: str, rest: bytes) -> bytes:
    data = path.encode()
    return _CHECK.pack(kind, len(data)) + data + b"\0" + rest
