"""Encodes plans as the bytes that native/replay.h describes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from hpcc.cache.replay.engine import Check, CheckKind, Plan, check_fits

_MAGIC: Final = 0x32727068
_HEADER: Final = struct.Struct("<6I2Q")
_GROUP: Final = struct.Struct("<2I")
_CHECK: Final = struct.Struct("<2I")
_OUTPUT: Final = struct.Struct("<2IQ")
_STATE: Final = struct.Struct("<5Q")
_PLACE: Final = struct.Struct("<4Q")
_NAMES: Final = struct.Struct("<4I")
_STATE_COUNTS: Final = 1
_NO_STATE: Final = (0, 0, 0, 0, 0)
_HASH_PRIME: Final = 0xFFFFFFFB
_HASH_SPREAD: Final = 0x9E3779B1
_KEEPS_MODE: Final = 1
_MASK: Final = (1 << 64) - 1
# Open a directory only for at least this many names: opening and closing costs 1.7 us, and a name
# relative to it costs 0.2 us less than a whole path.
MIN_GROUP: Final = 8


def encode_plan(plan: Plan, *, min_group: int = MIN_GROUP) -> bytes:
    """Encode a plan. Checks in directories with `min_group` names or more are grouped.

    Raises:
        ValueError: see `check_fits`.
    """
    check_fits(plan)
    groups = _groups(_source_first(plan), min_group)
    parts = []
    for directory, checks in groups:
        parts.append(_GROUP.pack(len(directory), len(checks)) + directory + b"\0")
        parts += [_encode_check(name, check) for name, check in checks]
    for output in plan.outputs:
        flags = _KEEPS_MODE if output.keeps_mode else 0
        parts.append(_OUTPUT.pack(flags, len(output.path), len(output.data)))
        parts += [output.path, b"\0", output.data]
    parts.append(plan.answer)
    size = _HEADER.size + sum(map(len, parts))
    header = _HEADER.pack(
        _MAGIC, size, len(groups), len(plan.outputs), plan.mode, len(plan.answer), *plan.source
    )
    return header + b"".join(parts)


def _source_first(plan: Plan) -> list[Check]:
    """Return the checks with the source's before all others: what a developer edits is a source."""

    def is_other(check: Check) -> bool:
        return check.kind is not CheckKind.STATE or check.values[:2] != plan.source

    return sorted(plan.checks, key=is_other)


def _groups(
    checks: Sequence[Check], min_group: int
) -> list[tuple[bytes, list[tuple[bytes, Check]]]]:
    """Group the checks by directory, in the order in which the directories first appear.

    Those that are in no group come first if the first check is among them, else last.
    """
    found: dict[bytes, list[tuple[bytes, Check]]] = {}
    for check in checks:
        directory, _, name = check.path.rpartition(b"/")
        if check.kind is CheckKind.LACKS:
            directory, name = check.path.rstrip(b"/"), b""
        found.setdefault(directory or b"/", []).append((name, check))
    groups, alone = [], []
    for directory, entries in found.items():
        if len(entries) >= min_group:
            groups.append((directory, entries))
        else:
            alone += [(check.path, check) for _, check in entries]
    if not alone:
        return groups
    if alone[0][1] is checks[0]:
        return [(b"", alone), *groups]
    return [*groups, (b"", alone)]


def _encode_check(name: bytes, check: Check) -> bytes:
    head = _CHECK.pack(check.kind, len(name))
    match check.kind:
        case CheckKind.STATE:
            # A time before 1970 is negative; the library computes modulo 2**64 as well.
            values = _STATE.pack(*(value & _MASK for value in check.values))
        case CheckKind.PLACE:
            values = _PLACE.pack(*check.values)
        case CheckKind.LACKS:
            state = (value & _MASK for value in check.values or _NO_STATE)
            values = _STATE.pack(*state) + _encode_names(check)
        case _:
            values = b""
    return head + values + name + b"\0"


def _encode_names(check: Check) -> bytes:
    """Encode names as a hash table that is half empty, so that a search is short."""
    slots = 2 * len(check.names)
    table = [0] * slots
    at = 1
    for name in check.names:
        slot = _hash(name) * slots >> 32
        while table[slot]:
            slot = (slot + 1) % slots
        table[slot] = at
        at += len(name) + 1
    flags = _STATE_COUNTS if check.values else 0
    text = b"".join(name + b"\0" for name in check.names)
    head = _NAMES.pack(flags, len(check.names), slots, len(text))
    return head + struct.pack(f"<{slots}I", *table) + text


def _hash(name: bytes) -> int:
    """Hash a name like native/names.h: in words of four bytes, one more than the name fills."""
    words = len(name) // 4 + 1
    number = int.from_bytes(name, "little") | int.from_bytes(b" " * (4 * words), "little")
    return number % _HASH_PRIME * _HASH_SPREAD & 0xFFFFFFFF
