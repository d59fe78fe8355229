"""Describes the parts of an entry of the private store, for `hpcc inspect`."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from hpcc.cache.base.manifest import InputSet, decode_manifest
from hpcc.cache.content.entries import decode_entries
from hpcc.cache.results.results import decode_result
from hpcc.core import IntegrityError


class EntryPart(NamedTuple):
    """One part of an entry; `digest` is a SHA-256 in hex, `size_bytes` is -1 if not applicable."""

    name: str
    size_bytes: int
    digest: str


def describe_entry(payload: bytes) -> tuple[str, list[EntryPart]]:
    """Return the kind of an entry ("result", "manifest" or "content") and its parts.

    Raises:
        IntegrityError: it is not an entry of this version.
    """
    try:
        result = decode_result(payload)
    except IntegrityError:
        kind, sets = _sets(payload)
        parts = []
        for inputs in sets:
            parts.append(EntryPart("result", -1, inputs.result_key.hex()))
            parts += [EntryPart(os.fsdecode(path), -1, d.hex()) for path, d in inputs.files]
        return kind, parts
    named = {
        "object": result.object_data,
        "depfile": result.depfile,
        "stdout": result.stdout,
        "stderr": result.stderr,
        **{f"output {number}": data for number, data in enumerate(getattr(result, "side", ()), 2)},
    }
    return "result", [
        EntryPart(name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in named.items()
        if data is not None
    ]


def _sets(payload: bytes) -> tuple[str, tuple[InputSet, ...]]:
    try:
        return "manifest", decode_manifest(payload)
    except IntegrityError:
        return "content", tuple(entry.inputs for entry in decode_entries(payload))
