"""What is recorded of a Windows client's compile, for `hpcc explain` and `hpcc report`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hpcc.cache.remote.cl_plan import ClJob
from hpcc.cache.remote.client import FarmCompile
from hpcc.cache.results.note import PlainNote
from hpcc.cache.results.records import Records
from hpcc.cache.windows.sharing import SharedCompile
from hpcc.core import FarmRun, parse_windows_path

# The farm had no result either: this client stores none by which to tell more.
_NEW: Final = "new-command"


class _Checkout(NamedTuple):
    root: bytes
    spell: Callable[[bytes], bytes]


class _Shared(NamedTuple):
    checkout: _Checkout


def noted(asked: SharedCompile) -> PlainNote:
    """Return what a record tells of this compile.

    A result under another key than the note's has names with marks.
    """
    compiled, share = asked.compiled, asked.share
    shared = None
    if share is not None:
        shared = _Shared(_Checkout(str(share.root).encode(), share.spell))
    return PlainNote(
        compiled.request,
        compiled.invocation,
        compiled.identity,
        asked.key,
        str(compiled.source).encode(),
        str(compiled.output).encode(),
        shared,
    )


class FarmRecords:
    """See `cl_client.ClRecords`."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.fell_back = records.fell_back

    def compiled(
        self, job: ClJob, compiled: FarmCompile, size_bytes: int, ran: FarmRun | None
    ) -> None:
        """See `cl_client.ClRecords`."""
        source, output = (
            str(parse_windows_path(name.decode(), cwd=job.cwd)).encode()
            for name in (job.invocation.source, job.invocation.output)
        )
        self._records.compiled(
            PlainNote(job.request, job.invocation, b"", job.key, source, output),
            compiled.outcome,
            key=job.key,
            started_ns=compiled.started_ns,
            image=compiled.image,
            action=compiled.action,
            reason=_NEW,
            size_bytes=size_bytes,
            ran=ran,
        )
