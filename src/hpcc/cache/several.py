"""The local cache for a command with several sources, such as `gcc -c a.c b.c`.

Problem: one run of the driver makes one object per source. Its messages, its exit status and what
it leaves after an error come from all of them together.

Rule: each source is one cached compile, under the key of the command with only this source. Those
with a stored result are put in place, in the order of the command, and one run of the compiler
makes the rest: the user's command without the sources that are in place.

What is printed must be what the whole command prints. The driver prints its own messages once,
however many sources there are, and each source's messages in order. So

- a stored result without messages shows that driver and source have none;
- stored messages are printed only if just one source has some, or if another source shows that the
  driver has none. All sources have one language, so that the driver says the same for each;
- what is compiled prints as it runs. Stored messages cannot be printed between, so sources that
  have some are compiled with the rest;
- a run of two or more sources is stored only if it printed nothing (`mixed-messages`).

Example: after an edit of b.c, `gcc -c a.c b.c c.c` puts a.o and c.o in place and runs `gcc -c b.c`,
whose messages are stored with b.o as for any other compile.

What must never happen: a source that reads what another source's compile writes gets the file of
another moment. `_reads_one` finds stored results of such sources, and the compiler runs as the user
called it. What a source reads that has no result is not known, so behind the first of them only
those results are put in place whose files are there already, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.api import MAX_CAPTURE_BYTES, CompileRequest, Done, Run, RunReport
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.outputs import read_output
from hpcc.cache.key.prepare import Classifier, Prepared
from hpcc.cache.local import LocalCache
from hpcc.cache.results.hits import Hits, PartHit
from hpcc.cache.results.pending import Pending
from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.invocation import Product
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.spec.table import Bypass

# The results of all sources are in memory at once, and their messages in one answer.
MAX_HELD_BYTES: Final = 256 << 20


class SeveralPending(NamedTuple):
    """The token of a `Run` of several sources."""

    parts: tuple[Pending, ...]


class SeveralCache:
    """Looks up, runs and stores the compiles of one command. Thread-safe like its parts."""

    def __init__(self, classifier: Classifier, local: LocalCache, hits: Hits) -> None:
        self._classifier, self._local, self._hits = classifier, local, hits

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Run | None:
        """Return a stored answer or how to run the compiler; None if it has to run unchanged."""
        line = family_of(request.compiler, request.argv[1:]).several_sources(request.argv[1:])
        if line is None:
            return None
        each = self._prepare(request, line, is_cancelled)
        if each is None:
            return None
        looked_up = self._find(each)
        if looked_up is None:
            return None
        hits = {n: hit for n, (hit, _) in enumerate(looked_up) if hit is not None}
        written = frozenset(path for prepared in each for path in prepared.outputs)
        if any(_reads_one(written, hit.found.inputs) for hit in hits.values()):
            return None
        served = self._put(hits, _usable(hits, len(each)))
        rest = [n for n in range(len(each)) if n not in served]
        if not rest:
            return self._answer(request, [hits[n] for n in sorted(served)])
        if len(rest) == 1:
            return self._local.begin(each[rest[0]], is_cancelled)
        return self._run(request, line, {n: (each[n], looked_up[n][1]) for n in rest})

    def finish(self, several: SeveralPending, report: RunReport) -> None:
        """Store the results of a run that ended, as far as that is safe."""
        try:
            for pending in several.parts:
                self._local.finish(pending, report)
        finally:
            self.abandon(several)

    def abandon(self, several: SeveralPending) -> None:
        """Release what a run holds; idempotent."""
        for pending in several.parts:
            self._local.abandon(pending)

    def _prepare(
        self, request: CompileRequest, line: SeveralSources, is_cancelled: Callable[[], bool]
    ) -> list[Prepared] | None:
        each: list[Prepared] = []
        for number in range(len(line.places)):
            argv = (request.argv[0], *line.only({number}))
            # Without a frame no hit of one source is remembered as the answer to the command.
            own = request._replace(argv=argv, frame=b"")
            prepared = self._classifier.prepare(own, is_cancelled)
            if isinstance(prepared, Bypass) or not _stands_alone(prepared, own):
                return None
            each.append(prepared)
        return each if _fit_together(each) else None

    def _find(self, each: Sequence[Prepared]) -> list[tuple[PartHit | None, str]] | None:
        """Return what is stored for each source; None if together it is too much for memory."""
        found: list[tuple[PartHit | None, str]] = []
        room = MAX_HELD_BYTES
        for prepared in each:
            found.append(self._local.find(prepared))
            hit = found[-1][0]
            room -= 0 if hit is None else hit.found.result.size_bytes
            if room < 0:
                return None
        return found

    def _put(self, hits: dict[int, PartHit], usable: Sequence[int]) -> set[int]:
        """Put results in place and return which are; with one fault, only those before it."""
        served: set[int] = set()
        for number in usable:
            if not self._local.put(hits[number]):
                # What has messages may not be printed beside a run of the compiler.
                return {n for n in served if not _has_messages(hits[n])}
            served.add(number)
        return served

    def _answer(self, request: CompileRequest, hits: Sequence[PartHit]) -> Done:
        results = [hit.found.result for hit in hits]
        stdout = b"".join(result.stdout for result in results)
        done = Done(0, stdout, b"".join(result.stderr for result in results))
        self._hits.remember_all(request, hits, done)
        return done

    def _run(
        self,
        request: CompileRequest,
        line: SeveralSources,
        rest: dict[int, tuple[Prepared, str]],
    ) -> Run:
        first, _ = next(iter(rest.values()))
        parts: list[Pending] = []
        try:
            for prepared, asked in rest.values():
                parts.append(self._local.beside(prepared, asked, len(rest)))
        except BaseException:
            self.abandon(SeveralPending(tuple(parts)))
            raise
        argv = (request.compiler, *line.only(rest), *first.injected, *first.colour)
        return Run(argv, SeveralPending(tuple(parts)), is_tentative=bool(first.injected))


def _stands_alone(prepared: Prepared, own: CompileRequest) -> bool:
    """Tell whether this is the compile of one source in a separate command, seen completely."""
    return (
        # A script or a response file adds arguments, which `SeveralSources` does not hold.
        prepared.request is own
        and prepared.invocation.arguments == own.argv[1:]
        # Compilers make the names of profiles from those of outputs.
        and not prepared.looked_for
        # The object holds the command line, and with it the other sources.
        and not prepared.is_recorded
        and not prepared.written.side
        and not prepared.invocation.has_modules
        and not prepared.invocation.concerns_interfaces
        and prepared.invocation.product is Product.OBJECT
        and not prepared.invocation.concerns_precompiled
        # Of a missing source the driver of Clang complains before it compiles another.
        and os.path.isfile(prepared.source)
    )


def _fit_together(each: Sequence[Prepared]) -> bool:
    """Tell whether no compile writes a file of another, and the driver treats all alike."""
    first = each[0]
    outputs = [path for prepared in each for path in prepared.outputs]
    written = {path.rpartition(b"/")[2] for path in outputs}
    return len(written) == len(outputs) and all(
        prepared.invocation.language is first.invocation.language
        and (prepared.injected, prepared.colour) == (first.injected, first.colour)
        # An output with one link that is a source, too, has the source's name.
        and prepared.source.rpartition(b"/")[2] not in written
        for prepared in each
    )


def _usable(hits: dict[int, PartHit], sources: int) -> list[int]:
    """Return which results may be put in place; see the rule in the module's docstring."""
    silent = [n for n, hit in hits.items() if not _has_messages(hit)]
    speaking = [hit.found.result for hit in hits.values() if _has_messages(hit)]
    # With messages on both streams the order is known only within one compile.
    is_ordered = len(speaking) == 1 or not any(result.stdout for result in speaking)
    is_ordered &= sum(len(r.stdout) + len(r.stderr) for r in speaking) <= MAX_CAPTURE_BYTES
    if len(hits) == sources and silent and is_ordered:
        return sorted(hits)
    first = next(n for n in range(sources + 1) if n not in silent)
    return [n for n in silent if n < first or _is_in_place(hits[n])]


def _is_in_place(hit: PartHit) -> bool:
    """Tell whether the outputs hold the stored bytes already."""
    prepared, result = hit.prepared, hit.found.result
    files = [(prepared.output, result.object_data), (prepared.depfile, result.depfile or b"")]
    return all(
        read_output(path, started_ns=0, limit=len(data)) == data
        for path, data in files
        if path is not None
    )


def _has_messages(hit: PartHit) -> bool:
    return bool(hit.found.result.stdout or hit.found.result.stderr)


def _reads_one(written: frozenset[bytes], inputs: InputSet) -> bool:
    """Tell whether a compile read, or looked for, one of the files `written` by this command."""
    names = {path.rpartition(b"/")[2] for path in written}
    read = (*(path for path, _ in inputs.files), *inputs.present)
    if any(path.rpartition(b"/")[2] in names for path in read):
        return True
    if any(
        not names.isdisjoint(absence.files | absence.directories) for absence in inputs.absences
    ):
        return True
    existing = {place for path in written if (place := _place(path)) is not None}
    return any(_place(path) in existing for path in read) if existing else False


def _place(path: bytes) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
