"""The local cache on Windows for a command with several sources, such as `cl /c a.cpp b.cpp`.

As `hpcc.cache.several` elsewhere: each source is one compile, under the key of the command with
only this source. Those with a stored result are put in place, and one run of the compiler makes the
rest: the user's command without the sources that are in place.

What differs: the compiler's list of headers does not tell where a source begins. So each source of
a run has all files that the run read as its inputs. That costs a compile after an edit of a header
that only another one reads; then that source runs alone, and is stored with its own files.

What is printed must be what the whole command prints. clang-cl prints nothing without messages. cl
prints each source's name, and behind all of them that it generates code, which a hit leaves out. A
run that printed anything else is not stored (`mixed-messages`), and stored results with messages
are put in place only if nothing runs beside them.

What must never happen: a source that reads what another one's compile writes gets the file of
another moment. As elsewhere: a stored result that read or looked for a name of an output leaves the
command to the compiler, and behind the first source without a result only those are put in place
whose objects are there already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, Run, RunReport
from hpcc.cache.results.results import Found
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.keeping import WindowsPending
from hpcc.cache.windows.sharing import SharedCompile, WindowsSharing
from hpcc.cache.windows.state import State
from hpcc.compilers.invocation.dependencies import Recording
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.msvc.family import msvc_family
from hpcc.compilers.msvc.several import sources_in, split_names
from hpcc.compilers.scan.windows_names import key_of, wide_key
from hpcc.compilers.spec.table import Bypass
from hpcc.core import parse_windows_path
from hpcc.core.reasons.uncacheable import UncacheableReason

# The results of all sources are in memory at once.
MAX_HELD_BYTES: Final = 256 << 20
Located = tuple[Found, bytes, State]


class OneSource(Protocol):
    """What the cache does for one source; see `local.WindowsCache`."""

    def find(self, asked: SharedCompile) -> Located | None:
        """Return the result whose inputs are those of now, its key, and what was looked at."""
        ...

    def put(self, asked: SharedCompile, found: Found, key: bytes, state: State) -> Done | None:
        """Put a result in place and count a hit; None if only the compiler may write there."""
        ...

    def begin_one(
        self, asked: SharedCompile, is_cancelled: Callable[[], bool]
    ) -> Done | Run | Exec:
        """Answer a compile of one source."""
        ...

    def why_not(self, compiled: WindowsCompile) -> str:
        """Return why the compiler is none that this cache knows; "" if it is."""
        ...

    def pending(
        self, asked: SharedCompile, *, sources: int
    ) -> tuple[WindowsPending, tuple[bytes, ...]]:
        """Count a miss; return the token of the compile that runs and the flags that hpcc adds."""
        ...

    def names(self, request: CompileRequest, stdout: bytes) -> tuple[tuple[str, ...] | None, bytes]:
        """Return the headers that the compiler listed, None if unknown, and its other output."""
        ...

    def end(self, pending: WindowsPending) -> None:
        """Release what a run holds."""
        ...

    def settle(
        self,
        pending: WindowsPending,
        report: RunReport,
        names: tuple[str, ...] | None,
        reason: UncacheableReason | None,
    ) -> None:
        """Store a result, or count the reason why it is not, and release what a run holds."""
        ...


class SeveralRun(NamedTuple):
    """The token of a `Run` of several sources."""

    parts: tuple[WindowsPending, ...]


class WindowsSeveral:
    """Looks up, runs and stores the compiles of one command. Thread-safe like its parts."""

    def __init__(self, disk: CacheDisk, sharing: WindowsSharing, one: OneSource) -> None:
        self._disk, self._sharing, self._one = disk, sharing, one

    def begin(
        self, request: CompileRequest, is_cancelled: Callable[[], bool]
    ) -> Done | Run | Exec | None:
        """Return a stored answer or how to run the compiler; None if it has to run unchanged."""
        is_clang = msvc_family(request.compiler).has_local_cache
        line = sources_in(request.argv[1:], is_clang=is_clang)
        if line is None:
            return None
        each = self._each(request, line)
        if each is None or self._one.why_not(each[0].compiled):
            return None
        found = self._find(each)
        if found is None:
            return None
        usable = self._usable(each, found)
        served = self._put(each, found, usable)
        rest = [n for n in range(len(each)) if n not in served]
        if not rest:
            parts = [served[n] for n in range(len(each))]
            out = b"".join(part.stdout for part in parts)
            return Done(0, out, b"".join(part.stderr for part in parts))
        if len(rest) == 1:
            own = each[rest[0]]
            return self._one.begin_one(own, is_cancelled)
        return self._run(request, line, [(n, each[n]) for n in rest])

    def finish(self, several: SeveralRun, report: RunReport) -> Finish:
        """Store the results of a run that ended, as far as that is safe."""
        compiled = several.parts[0].compiled
        names, rest = self._one.names(compiled.request, report.stdout)
        texts = self._texts(several, rest, report.stderr)
        for number, pending in enumerate(several.parts):
            reason = None if texts is not None else UncacheableReason.MIXED_MESSAGES
            text = texts[number] if texts is not None else b""
            self._one.settle(pending, report._replace(stdout=text), names, reason)
        return Finish(b"", b"") if compiled.lists else Finish(rest, report.stderr)

    def _texts(self, several: SeveralRun, rest: bytes, stderr: bytes) -> list[bytes] | None:
        """Return what the compiler printed for each source; None if that is not known."""
        if stderr or several.parts[0].compiled.lists:
            return None
        if several.parts[0].compiled.family.has_local_cache:
            return None if rest else [b""] * len(several.parts)
        split = split_names(rest, [part.compiled.invocation.source for part in several.parts])
        return None if split is None else split[0]

    def _each(self, request: CompileRequest, line: SeveralSources) -> list[SharedCompile] | None:
        """Return the compile of each source; None if one of them is not a compile by itself."""
        each: list[SharedCompile] = []
        for number in range(len(line.places)):
            own = line.only({number})
            # Without a frame no hit of one source is kept as the answer to the command.
            alone = request._replace(argv=(request.argv[0], *own), frame=b"")
            compiled = read_compile(self._disk, alone)
            if isinstance(compiled, Bypass) or not self._stands_alone(compiled, own):
                return None
            each.append(self._sharing.ask(self._disk, compiled))
        return each if _fit_together(each) else None

    def _stands_alone(self, compiled: WindowsCompile, own: tuple[bytes, ...]) -> bool:
        return (
            # `CL` or a response file adds arguments, which `SeveralSources` does not hold.
            compiled.invocation.arguments == own
            and not compiled.about_precompiled
            and compiled.depfile is None  # all would write the same one
            # The object holds the command line.
            and compiled.family.recording(compiled.invocation) is not Recording.ALWAYS
            and self._disk.is_directory(str(compiled.source)) is False
        )

    def _find(self, each: Sequence[SharedCompile]) -> dict[int, Located] | None:
        """Return what is stored; None if it is too much, or one read what another one writes."""
        found: dict[int, Located] = {}
        written = {wide_key(asked.compiled.output.components[-1]) for asked in each}
        room = MAX_HELD_BYTES
        for number, asked in enumerate(each):
            located = self._one.find(asked)
            if located is None:
                continue
            found[number] = located
            room -= located[0].result.size_bytes
            if room < 0 or _reads_one(located[0], written):
                return None
        return found

    def _usable(self, each: Sequence[SharedCompile], found: dict[int, Located]) -> list[int]:
        """Return which results may be put in place; see the module."""
        results = {n: located[0].result for n, located in found.items()}
        streams = [any(r.stdout for r in results.values()), any(r.stderr for r in results.values())]
        if len(found) == len(each) and not all(streams):
            return sorted(found)
        if not each[0].compiled.family.has_local_cache:
            return []  # cl prints the names in the order of the command
        silent = {n for n, result in results.items() if not result.stdout and not result.stderr}
        first = next(n for n in range(len(each) + 1) if n not in silent)
        return [n for n in sorted(silent) if n < first or self._is_in_place(each[n], found[n])]

    def _is_in_place(self, asked: SharedCompile, located: Located) -> bool:
        data = located[0].result.object_data
        return self._disk.read(str(asked.compiled.output), len(data)) == data

    def _put(
        self, each: Sequence[SharedCompile], found: dict[int, Located], usable: Sequence[int]
    ) -> dict[int, Done]:
        """Put results in place and return their answers; with one fault, only those before it."""
        served: dict[int, Done] = {}
        for number in usable:
            done = self._one.put(each[number], *found[number])
            if done is None:
                # What has messages may not be printed beside a run of the compiler.
                return {n: d for n, d in served.items() if not d.stdout and not d.stderr}
            served[number] = done
        return served

    def _run(
        self,
        request: CompileRequest,
        line: SeveralSources,
        rest: Sequence[tuple[int, SharedCompile]],
    ) -> Run:
        parts: list[WindowsPending] = []
        injected: tuple[bytes, ...] = ()
        try:
            for _, asked in rest:
                pending, injected = self._one.pending(asked, sources=len(rest))
                parts.append(pending)
        except BaseException:
            for pending in parts:
                self._one.end(pending)
            raise
        compiled = rest[0][1].compiled
        listing = () if compiled.lists else (b"-showIncludes",)
        arguments = line.only({number for number, _ in rest})
        argv = (request.compiler, *injected, *listing, *arguments)
        return Run(argv, SeveralRun(tuple(parts)), filter_headers=not compiled.lists)


def _fit_together(each: Sequence[SharedCompile]) -> bool:
    """Tell whether no compile writes a file of another, and all are compiled alike.

    A marker may exclude one of the sources: then the flags for sharing are not those of all.
    """
    outputs = {key_of(asked.compiled.output) for asked in each}
    names = {wide_key(asked.compiled.output.components[-1]) for asked in each}
    return len(outputs) == len(names) == len(each) and all(
        asked.compiled.invocation.language is each[0].compiled.invocation.language
        and asked.injected == each[0].injected
        and wide_key(asked.compiled.source.components[-1]) not in names
        for asked in each
    )


def _reads_one(found: Found, written: set[str]) -> bool:
    """Tell whether a compile read, or looked for, a file with the name of an output."""
    inputs = found.inputs
    read = (*(path for path, _ in inputs.files), *inputs.present)
    names = {wide_key(parse_windows_path(path.decode()).components[-1]) for path in read}
    for absence in inputs.absences:
        names.update(name.decode() for name in absence.files | absence.directories)
    return not names.isdisjoint(written)
