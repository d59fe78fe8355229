"""Build packs of a farm's results: found by the command, and checked where a worker's answer is.

Problem: with a farm, results belong to actions of an image, and workers sign them. A pack must not
replace the worker's word by that of CI.

Rule: an entry is the worker's signed result with its outputs (`hpcc.reapi.packed`). It is found by
a name that says tenant, image and command, and goes along with the request. The dispatcher builds
the action from this checkout's files, as always, and uses the entry only if it is the result of
that action, and counts as a hit would.

Example: CI's compiles run in fresh guests. Ann pulls CI's pack, and her first build sends no
question to the farm but for her route and the reports of what she used. A header that she edited
gives another action, and the farm is asked.

What must never happen: a name decides whether an entry is used.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.key.marker import Marker
from hpcc.cache.packs.packs import PREFIX, Packs
from hpcc.cache.remote.job import RemoteJob
from hpcc.config.farm import Farm
from hpcc.core import PACK_REFUSED, PACK_USED, ImageRef, RemoteRequest, RemoteResult
from hpcc.core.reasons.remote_cache import RefusedEntry

_FORMAT: Final = b"farm-result-1"


def farm_row_name(namespace: str, farm: Farm, request: RemoteRequest) -> bytes:
    """Return the name of the row of a command: 32 bytes, the same on each machine of a team."""
    fields = [
        _FORMAT,
        namespace.encode(),
        farm.tenant.encode(),
        ImageRef.parse(farm.image).digest.value.encode(),
        request.cwd.encode("utf-8", "surrogateescape"),
        *(word.encode("utf-8", "surrogateescape") for word in request.argv),
    ]
    return hashlib.sha256(encode_fields(fields)).digest()


class FarmPacks:
    """What packs have for compiles on a farm. Thread-safe; raises for nothing that a pack has."""

    def __init__(self, packs: Packs, counters: Counters) -> None:
        self._packs, self._counters = packs, counters

    def asked(self, job: RemoteJob, request: RemoteRequest, farm: Farm) -> RemoteRequest:
        """Return the request with what a pack of the checkout has for its command."""
        marker = job.root.marker
        if marker is None or farm.engine or _is_excluded(job, marker):
            return request
        entry = self._packs.farm_entry(marker.root, self._row(farm, request))
        if not entry:
            self._packs.saw_root(marker.root, marker.revoked_keys)
        return replace(request, packed=entry, wants_entry=self._packs.may_push)

    def answered(
        self, job: RemoteJob, request: RemoteRequest, farm: Farm, result: RemoteResult
    ) -> None:
        """Count what became of an entry, and keep what a push may send."""
        if result.pack == PACK_USED:
            self._counters.add(f"{PREFIX}-found")
        elif result.pack == PACK_REFUSED:
            self._counters.add(f"{RefusedEntry.FARM.prefix}.{RefusedEntry.FARM}")
        elif result.pack:
            self._counters.add(f"{PREFIX}-{result.pack}")
        marker = job.root.marker
        if marker is None or not result.entry:
            return
        row = self._row(farm, request)
        if result.pack == PACK_USED:
            self._packs.farm_taken(marker.root, row, result.entry)
        else:
            self._packs.farm_made(marker.root, row, result.entry)

    def _row(self, farm: Farm, request: RemoteRequest) -> bytes:
        return farm_row_name(self._packs.namespace, farm, request)


def _is_excluded(job: RemoteJob, marker: Marker) -> bool:
    """Tell whether the marker keeps the source out of what leaves the machine as shared."""
    return marker.excludes(job.prepared.source.removeprefix(marker.root + b"/"))
