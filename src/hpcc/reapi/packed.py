"""A worker's result on its way through a build pack, and when it may serve a colleague.

Problem: a pack of a build on a farm lies in a place that is not the farm's, and was put together by
CI. Neither may decide what a build gets.

Rule: an entry is the worker's own signed result with the contents of its outputs. Its reader
compares tenant and action with those of the compile, checks the result as one that a worker
sent (`check_terms`, the signature, each claim), and each content against its digest. Beyond that,
only what may serve the whole tenant counts (`serves_tenant`), also for the person who made it.

Example: Mallory's guest is rooted. What it gave is signed for Mallory only. She can push it, and
nobody uses it.

What must never happen: the pack's signature is a reason to use an entry.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from hpcc.core import Digest, GuestReuse, SharingPolicy, TenantId
from hpcc.reapi.limits import MAX_RESULT_BYTES, ReapiError
from hpcc.reapi.result import ResultRecord, encode_result, parse_result

_FORM: Final = b"pack-farm-1"
_LENGTH: Final = struct.Struct(">I")
_FIELDS: Final = 4
# A tenant's name and a digest need far less.
_MAX_HEAD_BYTES: Final = 1024


class PackedResult(NamedTuple):
    """An entry that was parsed. Nothing in it is checked yet."""

    tenant: str
    action: str
    record: ResultRecord


def serves_tenant(record: ResultRecord, sharing: SharingPolicy) -> bool:
    """Return whether a result may serve all members, if its signature and terms hold.

    Its evidence says so, which `check_terms` checks; or its guest ran this action and nothing else
    in its life, which is what `fresh` means.
    """
    if record.exit_code or record.reason:
        return False
    if record.evidence is not None:
        return not sharing.is_private
    is_fresh = record.reuse is GuestReuse.EXEC and not record.guest_execs_before
    return is_fresh and sharing.accepts_fresh


def encode_packed(tenant: TenantId, action: Digest, record: ResultRecord) -> bytes:
    """Return the entry of a result whose outputs are all inline; b"" if it is too large."""
    data = encode_result(record)
    if len(data) > MAX_RESULT_BYTES:
        return b""
    fields = (_FORM, tenant.value.encode(), str(action).encode(), data)
    return b"".join(_LENGTH.pack(len(field)) + field for field in fields)


def parse_packed(data: bytes) -> PackedResult:
    """Parse an entry, which may be anybody's.

    Raises:
        ReapiError: it is not one of this version.
    """
    if len(data) > MAX_RESULT_BYTES + _MAX_HEAD_BYTES:
        raise ReapiError("an entry of a pack is too large", reason="packed-form")
    fields: list[bytes] = []
    offset = 0
    while offset < len(data) and len(fields) <= _FIELDS:
        if len(data) - offset < _LENGTH.size:
            break
        (size,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        fields.append(data[offset : offset + size])
        offset += size
    if offset != len(data) or len(fields) != _FIELDS or fields[0] != _FORM:
        raise ReapiError("not an entry of a pack of a farm", reason="packed-form")
    tenant, action = (field[:_MAX_HEAD_BYTES].decode("utf-8", "replace") for field in fields[1:3])
    return PackedResult(tenant, action, parse_result(fields[3]))
