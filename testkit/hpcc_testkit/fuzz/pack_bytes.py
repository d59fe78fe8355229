"""Targets: what is read of a build pack, and of a clone's `.git`."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import make_set
from hpcc.cache.git.ancestors import ancestors_of
from hpcc.cache.git.reading import GitError
from hpcc.cache.git.refs import find_repository, read_head
from hpcc.cache.packs.chunks import (
    PackRecord,
    open_record,
    pack_chunks,
    row_name,
    signed_record,
)
from hpcc.cache.packs.index import (
    MAX_CHUNK_BYTES,
    MAX_RATIO,
    Chunk,
    PackError,
    PackIndex,
    open_index,
    parse_index,
    sign_index,
    stored_index,
)
from hpcc.cache.results.results import Result
from hpcc.cache.signed.entry import MAX_OBJECT_BYTES, Content, EntryName
from hpcc.core import (
    MAX_OUTPUTS,
    CallerError,
    Digest,
    GuestReuse,
    IntegrityError,
    Isolation,
    TenantId,
)
from hpcc.identity.cache_keys import ROLE_ENTRIES, CacheKey, SigningKey
from hpcc.reapi.packed import encode_packed, parse_packed
from hpcc.reapi.result import ResultOutput, ResultRecord
from hpcc_testkit.fuzz.local_bytes import fuzz_place

_PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
_SIGNING: Final = SigningKey(
    CacheKey(_PRIVATE.public_key().public_bytes_raw(), ROLE_ENTRIES, date(2999, 1, 1)), _PRIVATE
)
_COMMIT: Final = "c" * 40
_NAME: Final = EntryName(b"k" * 32, b"s" * 32, b"i" * 32)
_BETWEEN: Final = b"\n%%\n"
_FILES: Final = (
    "HEAD",
    "refs/heads/main",
    "packed-refs",
    "commondir",
    "objects/info/alternates",
    "objects/ab/" + "ab" * 19,
    "objects/pack/pack-1.idx",
    "objects/pack/pack-1.pack",
)
_OBJECT: Final = b"\xab" * 20
_TEXT: Final = b"tree " + b"1" * 40 + b"\nparent " + b"2" * 40 + b"\n\n"


def pack_index(data: bytes) -> None:
    """A reader of a pack's index: unpacked, packed, or the whole object.

    A header that the key did not sign gets its signature, because no input would come past it.
    """
    for parse in (parse_index, _stored, _signed):
        try:
            chunks = parse(data)
        except PackError:
            continue
        for chunk in chunks:
            assert sum(row.size for row in chunk.rows) == chunk.raw_bytes
            assert chunk.raw_bytes <= min(MAX_CHUNK_BYTES, MAX_RATIO * chunk.packed_bytes)
            assert 0 < chunk.packed_bytes <= MAX_OBJECT_BYTES


def _stored(data: bytes) -> tuple[Chunk, ...]:
    return stored_index(data).chunks


def _signed(data: bytes) -> tuple[Chunk, ...]:
    magic, _, rest = data.partition(b"\n")
    try:
        header, _, packed = decode_fields(rest)
    except (IntegrityError, ValueError):
        return ()
    signature = _PRIVATE.sign(b"hpcc remote cache pack\0" + header)
    data = magic + b"\n" + encode_fields([header, signature, packed])
    return open_index(data, _COMMIT, "team", lambda _kid: _SIGNING.key, 1 << 30)[1].chunks


def pack_index_seeds() -> Mapping[str, bytes]:
    """An unpacked index, and an object."""
    index = PackIndex(_COMMIT, tuple(chunk for chunk, _ in pack_chunks([_record()])))
    chunk = index.chunks[0]
    table = struct.pack(">32sIII", *chunk[:3], 1)
    rows = struct.pack(">32sI", *chunk.rows[0])
    return {
        "unpacked": encode_fields([table, rows]),
        "two-chunks": encode_fields([table + b"x" + table[1:], rows * 2]),
        "object": sign_index(index, "team", _SIGNING),
    }


def _content() -> Content:
    inputs = make_set(_NAME.share_key, ((b"\0/a.c", _NAME.source),), (), ())
    return Content(inputs, Result(b"\x7fELF", None, b"", b"warning"))


def _record() -> PackRecord:
    data = signed_record(_NAME, "team", _content().encode(), _SIGNING)
    return PackRecord(row_name(_NAME, "team"), (_NAME.share_key, _NAME.source), lambda: data)


def pack_record(data: bytes) -> None:
    """A reader of a pack's record, and of its content by a holder of the key."""
    judge = lambda _kid: _SIGNING.key  # noqa: E731 - the shortest judge
    open_record(data, _NAME, "team", judge)
    open_record(signed_record(_NAME, "team", data, _SIGNING), _NAME, "team", judge)


def pack_record_seeds() -> Mapping[str, bytes]:
    """A record, and a content."""
    return {"record": _record().read() or b"", "content": _content().encode()}


def clone(data: bytes) -> None:
    """A reader of HEAD and ancestors in a clone, whose files are the parts of the input."""
    root = fuzz_place() / "clone"
    shutil.rmtree(root, ignore_errors=True)
    for name, content in zip(_FILES, data.split(_BETWEEN), strict=False):
        path = root / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_bytes(content)
    try:
        repository = find_repository(os.fsencode(root))
        if repository is not None:
            assert len(read_head(repository)) in {40, 64}
    except GitError:
        pass
    found = ancestors_of(os.fsencode(root), b"/", _OBJECT.hex())
    assert found[0] == _OBJECT.hex()
    assert len(found) <= 64


def clone_seeds() -> Mapping[str, bytes]:
    """A branch, packed refs, a detached HEAD; a loose commit, one in a pack, one as a delta."""
    head, name = b"ref: refs/heads/main\n", b"a" * 40 + b"\n"
    loose = zlib.compress(b"commit %d\0" % len(_TEXT) + _TEXT)
    plain = _entry(1, _TEXT)
    other = b"\xac" * 20
    size = bytes([len(_TEXT)])
    delta = _entry(7, size + size + bytes([0x90, len(_TEXT)]), other)
    return {
        "branch": _joined(head, name, b"", b"", b"", loose),
        "packed": _joined(head, b"", name[:-1] + b" refs/heads/main\n", b"", b"/x\n../objects\n"),
        "detached": _joined(name),
        "worktree": _joined(head, name, b"", b"../elsewhere\n"),
        "pack": _joined(head, name, b"", b"", b"", b"", *_pack({_OBJECT: plain})),
        "delta": _joined(
            head, name, b"", b"", b"", b"", *_pack({_OBJECT: delta, other: plain})
        ),
    }  # fmt: skip


def _joined(*parts: bytes) -> bytes:
    return _BETWEEN.join(parts)


def _entry(kind: int, content: bytes, base: bytes = b"") -> bytes:
    size = len(content)
    return bytes([size & 15 | kind << 4 | 0x80, size >> 4]) + base + zlib.compress(content)


def _pack(objects: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return an index of version 2 and its pack."""
    pack, offsets = b"PACK" + struct.pack(">II", 2, len(objects)), {}
    for name, entry in objects.items():
        offsets[name] = len(pack)
        pack += entry
    names = sorted(objects)
    fanout = [sum(name[0] <= first for name in names) for first in range(256)]
    index = b"\xfftOc" + struct.pack(">I256I", 2, *fanout) + b"".join(names)
    index += bytes(4 * len(names)) + b"".join(struct.pack(">I", offsets[n]) for n in names)
    return index, pack


def packed_result(data: bytes) -> None:
    """An entry of a pack of a farm, which a dispatcher gets."""
    try:
        tenant, action, record = parse_packed(data)
    except CallerError:
        return
    assert len(tenant) + len(action) <= 2 * 1024
    assert len(record.inline) <= len(record.outputs) <= MAX_OUTPUTS


def packed_result_seeds() -> Mapping[str, bytes]:
    """Return an entry with an output, and one without."""
    record = ResultRecord(
        exit_code=0, stdout=b"", stderr=b"w", isolation=Isolation.QEMU_KVM,
        outputs=(ResultOutput("a.o", Digest.of(b"o")),), reuse=GuestReuse.EXEC, guest_id="g",
        guest_execs_before=0, worker="w1", image="sha256:" + "ab" * 32, inline={"a.o": b"o"},
    )  # fmt: skip
    action = Digest.of(b"a")
    return {
        "whole": encode_packed(TenantId("t"), action, record),
        "without": encode_packed(TenantId("t"), action, replace(record, outputs=(), inline={})),
    }
