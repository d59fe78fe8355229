"""The state of one running local compile, and readers for the files it leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from hpcc.cache.base.api import RunReport
from hpcc.cache.base.clock_text import mentions_clock
from hpcc.cache.base.files import FileMemo, Signature, signature_of
from hpcc.cache.base.name_watch import NameWatch
from hpcc.cache.base.outputs import read_output
from hpcc.cache.base.path_stability import Place
from hpcc.cache.base.stamps import CompileStart, StampClock, take_start
from hpcc.cache.base.uncacheable import UncacheableError, absolute, check_start
from hpcc.cache.content.key import ContentKey
from hpcc.cache.inputs.closure_types import ClosureRequest, MadeFrom
from hpcc.cache.inputs.embedded_files import (
    look_again,
    read_listing,
    unlisted_doubts,
    unopened_names,
)
from hpcc.cache.inputs.where import find_culprit
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.replay.writing import Writer
from hpcc.cache.results.inflight import Flight
from hpcc.cache.results.records import Records
from hpcc.cache.results.scratch import DiskSpace, without_complaints
from hpcc.cache.results.share_results import SharedResults
from hpcc.compilers.invocation.dependencies import Way
from hpcc.compilers.invocation.depfile import MAX_DEPFILE_BYTES
from hpcc.compilers.invocation.invocation import Product
from hpcc.compilers.invocation.precompiled import GCH_SUFFIX
from hpcc.compilers.scan.scan import Hazard
from hpcc.core import RunHere
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.uncacheable import UncacheableReason


@dataclass(slots=True)
class Pending:
    """The token of a `Run`: what `finish` needs, and what it finds out.

    `key` is the key under which the result is stored, `content` the content key; `private` says
    why other checkouts do not get it. `started` is from before the answer, and so from before the
    compiler could start.
    """

    prepared: Prepared
    way: Way
    started: CompileStart
    flight: Flight | None
    missed: str
    fallback: str
    side_before: tuple[Signature | None, ...]
    places: dict[bytes, Place]
    key: bytes
    private: str
    content: ContentKey | None
    asked: str  # what the remote cache had for it
    private_depfile: bytes | None = None
    listing: bytes | None = None
    room: DiskSpace = DiskSpace.ENOUGH
    sources: int = 1  # how many sources the command compiles; each has a `Pending`
    is_compiled: bool = False  # the compiler ended with status 0
    messages: bytes = b""  # what the compiler printed, without the lines that hpcc asked for
    here: RunHere | None = None  # the local slot that it runs in
    interfaces: tuple[bytes, ...] = ()  # absolute paths of GCC's compiled interfaces that it read
    size_bytes: int = 0  # of its result, once that is known
    files: tuple[bytes, ...] = ()  # absolute paths of what it read, once they are known
    watch: NameWatch | None = None  # of names that no list of files shows
    writer: Writer | None = None  # what it writes, and whether others do, too
    has_clock: bool = False  # its output has a text that may be the time of the compile

    def stop_watching(self) -> None:
        """Release the watch and the outputs; idempotent."""
        if self.watch is not None:
            self.watch.close()
        if self.writer is not None:
            self.writer.end()

    def own_start(self, now_ns: int) -> int:
        """Return when it began if each source of its command took the same time until now."""
        return now_ns - (now_ns - self.started) // self.sources


def start_of(
    prepared: Prepared,
    directories: tuple[bytes, ...],
    expected: tuple[bytes, ...],
    shared: SharedResults,
    memo: FileMemo,
    clock: StampClock,
) -> CompileStart:
    """Return the present moment for a compile that reads from `directories`.

    `shared` names the files that it probably reads, and `expected` are those of modules.
    """
    cwd, known = prepared.cwd, shared.latest_files(prepared.share, prepared.key)
    places = (cwd, *(absolute(cwd, directory or b"/") for directory in directories))
    # Build systems write a file that a flag names just before the compile.
    invocation = prepared.invocation
    forced = (*invocation.inner.used, *(n + GCH_SUFFIX for n in invocation.forced_includes))
    named = (absolute(cwd, name) for name in (*prepared.looked_for, *forced, *expected))
    return take_start(clock, places, (prepared.source, *named, *known), memo.digest)


def check_product(pending: Pending, made: bytes) -> bool:
    """Check what a compile made or printed; return whether it has a text like the present time.

    Such a text may be a string of a source: the scan found no clock, or settled it. The longer a
    compile takes, the more strings look like its time. The preprocessor, asked at another moment,
    tells them apart.

    Raises:
        UncacheableError: there is such a text, and the preprocessor cannot be asked.
    """
    prepared = pending.prepared
    if prepared.dates_are_pinned or not mentions_clock(made, pending.started, time.time_ns()):
        return False
    resolvable = prepared.family.resolvable(prepared.identity.major)
    is_back_end = prepared.invocation.product is Product.BACK_END
    has_text = pending.way is not Way.OWN_TEXT and not is_back_end
    if not has_text or Hazard.PASTED_CLOCK not in resolvable:
        raise UncacheableError(UncacheableReason.DATE_TIME)
    return True


def closure_request(
    memo: FileMemo,
    pending: Pending,
    files: tuple[bytes, ...],
    search: tuple[bytes, ...],
    watched: tuple[bytes, ...],
    made_from: MadeFrom | None,
) -> ClosureRequest:
    """Return what to examine of a compile that read `files`.

    `search` are all include directories, `watched` paths that must not exist. For `made_from` see
    `ClosureRequest`.

    Raises:
        UncacheableError: see `names_listed`.
    """
    prepared, has_listing = pending.prepared, pending.listing is not None
    family, invocation = prepared.family, prepared.invocation
    is_header, output = invocation.language.is_header, prepared.output or b""
    return ClosureRequest(
        cwd=prepared.cwd,
        source=invocation.source,
        files=(invocation.source, *files),
        search=search,
        forced=invocation.forced_includes,
        started_ns=pending.started,
        allow_date=prepared.dates_are_pinned,
        arguments=invocation.arguments,
        macros=invocation.macros,
        data=names_listed(memo, pending, files),
        absent=watched,
        twin_rule=family.twin_rule,
        doubts=family.doubts(invocation)
        | unlisted_doubts(prepared, has_listing)
        | (Hazard.PASTED_CLOCK if pending.has_clock else Hazard.NONE),
        resolvable=family.resolvable(prepared.identity.major),
        look_again=partial(
            look_again, memo, prepared, search, lambda: False, has_listing=has_listing
        ),
        asks_preprocessor=pending.way is Way.SECOND_RUN,
        made_from=made_from,
        inner=invocation.inner.includes,
        used=invocation.inner.used,
        # Clang writes another file first. One that it includes by a flag may be the old one.
        output=output if is_header and prepared.written.output_keeps_mode else b"",
    )


def is_tied(pending: Pending) -> bool:
    """Return whether a result may name this checkout, whose marker asks for sharing.

    Not if it is private for its flags alone, as each assembler source is: it runs without maps, as
    it does without a marker, and content keys have their own list of flags.
    """
    prepared, reason = pending.prepared, pending.private
    return reason != "" and not (prepared.share is None and reason == PrivateReason.FLAGS)


def signature_or_none(path: bytes) -> Signature | None:
    """Return a file's `Signature`, None if it does not exist."""
    try:
        return signature_of(os.stat(path))
    except OSError:
        return None


def checked_report(pending: Pending, report: RunReport) -> tuple[RunReport, bytes]:
    """Return a report without messages about private files, and what the user has not seen yet."""
    if pending.room is not DiskSpace.LITTLE:
        return report, b""
    stderr = without_complaints(report.stderr, (pending.private_depfile, pending.listing))
    return report._replace(stderr=stderr), stderr


def _check_messages(pending: Pending) -> None:
    """Refuse a back end of ThinLTO that printed something.

    Raises:
        UncacheableError: it may have left out a module that is missing.
    """
    is_back_end = pending.prepared.invocation.product is Product.BACK_END
    if is_back_end and pending.messages:
        raise UncacheableError(UncacheableReason.THINLTO_MESSAGE)


def check_known(pending: Pending, files: tuple[tuple[bytes, bytes], ...], memo: FileMemo) -> None:
    """Check what is known from before the compile, after the last stat; `files` are the inputs.

    Raises:
        UncacheableError: see `check_start`; or a response file changed since its arguments, which
            are in the key, were read.
    """
    check_start(pending.started, files)
    for path, signature, digest in pending.prepared.responses:
        if signature_or_none(path) != signature or memo.digest(path) != digest:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)


def culprit_of(memo: FileMemo, pending: Pending, error: UncacheableError) -> str:
    """Return which file or argument of a finished compile an error is about; "" if unknown."""
    prepared = pending.prepared
    files, arguments = (prepared.source, *pending.files), prepared.invocation.arguments
    return str(find_culprit(memo, error, files, arguments, pending.started) or "")


def names_listed(
    memo: FileMemo, pending: Pending, files: Iterable[bytes], named: Iterable[bytes] = ()
) -> tuple[bytes, ...]:
    """Return the names of the files that the assembler opened; empty if it got no listing flag.

    `files` are the headers. `named` are files that the source gives as its origin; they need not
    exist.

    Raises:
        UncacheableError: its list is missing or cannot be read.
    """
    if pending.listing is None:
        return ()
    data = read_output(pending.listing, started_ns=pending.started, limit=MAX_DEPFILE_BYTES)
    # On a full disk GNU as only warns, and writes the first blocks.
    if data is None or not data.endswith(b"\n") or data.endswith(b"\\\n"):
        raise UncacheableError(UncacheableReason.DEPFILE_UNREADABLE)
    prepared = pending.prepared
    unopened = partial(unopened_names, memo, prepared, tuple(files))
    return read_listing(prepared, data, named, unopened)


def read_side_outputs(pending: Pending, limit: int) -> tuple[bytes, ...]:
    """Return the contents of the further outputs, in the order of `Prepared.side_paths`.

    Empty for one that may be missing and was not written.

    Raises:
        UncacheableError: a file is missing, or this compile did not write it, or others wrote
            one of its outputs, too.
    """
    _check_messages(pending)
    found = []
    prepared = pending.prepared
    sides = zip(prepared.written.side, prepared.side_paths, pending.side_before, strict=True)
    for file, path, before in sides:
        if file.may_be_missing and signature_or_none(path) == before:
            found.append(b"")
            continue
        data = read_output(path, started_ns=pending.started, limit=limit)
        # A compile does not always write a file that its flags announce.
        if data is None or signature_or_none(path) == before:
            raise UncacheableError(UncacheableReason.SIDE_OUTPUT_MISSING)
        found.append(data)
    if pending.writer is not None and not pending.writer.is_alone:
        # Whose output it is, nobody knows.
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, prepared.output or b"")
    return tuple(found)


def record_end(
    records: Records, pending: Pending, outcome: str, reason: str, culprit: str = ""
) -> None:
    """Record how a compile ended, and what hpcc found out about it."""
    if pending.is_compiled and records.claims is not None:
        records.claims.ended(pending)
    records.compiled(
        pending.prepared,
        outcome,
        key=pending.key,
        private=pending.private,
        started_ns=pending.own_start(time.time_ns()),
        reason=reason,
        culprit=culprit,
        fallback=pending.fallback,
        remote_cache=pending.asked,
        size_bytes=pending.size_bytes,
        sources=pending.sources,
    )
