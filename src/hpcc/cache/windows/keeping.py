"""Stores the result of a compile on Windows, if that is safe.

What must never happen: an object is stored under inputs that it was not made from. So the object
must be new and written by this compile, the files must be those from before it (`inputs`), the
command and the compiler unchanged, and the clock not set meanwhile. What a precompiled header was
made of counts as read (`precompiled`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from hpcc.cache.base.api import RunReport
from hpcc.cache.base.clock_text import mentions_clock
from hpcc.cache.base.manifest import make_set
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.clocks import CLOCKS, refuse_clocks
from hpcc.cache.remote.cl_host import ClHost, search_directories
from hpcc.cache.replay.writing import Writer
from hpcc.cache.results.inflight import Flight
from hpcc.cache.results.results import Result, Results
from hpcc.cache.windows.border import leaves
from hpcc.cache.windows.command import Precompiled, WindowsCompile, read_compile
from hpcc.cache.windows.depfiles import names_in
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.inputs import CompileFiles, Texts, find_inputs
from hpcc.cache.windows.precompiled import PrecompiledRecords, UsedHeader
from hpcc.cache.windows.sharing import SharedCompile, WindowsShare, why_result_is_private
from hpcc.cache.windows.state import Inputs
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.scan.assembler import read_statements
from hpcc.compilers.scan.scan import Hazard, scan_arguments
from hpcc.compilers.scan.windows_names import key_of
from hpcc.compilers.spec.table import Bypass
from hpcc.config.settings import CacheSettings
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path, windows_key
from hpcc.core.reasons.uncacheable import UncacheableReason

# As `stamps.StampClock`: a wider step of the clock than the window of `is_in_window` allows.
_MAX_STEP_NS: Final = 25_000_000


@dataclass(frozen=True, slots=True)
class Began:
    """What was so when a compile began.

    `names_before` are the names beside source and output, by directory; `started_ns` is from after
    that and before the answer. `step_ns` tells whether the clock was set.
    """

    names_before: Mapping[bytes, frozenset[bytes]]
    started_ns: int
    step_ns: int


@dataclass(slots=True, eq=False)
class WindowsPending:
    """The token of a `Run`.

    `writer` tells whether another compile wrote the same output meanwhile. `key` is the one under
    which the result is stored, and `private` why it is not shared. `fallback` says why a farm did
    not do it. Its command compiles `sources` sources.
    """

    asked: SharedCompile
    began: Began
    flight: Flight | None
    missed: str
    writer: Writer
    key: bytes
    private: str
    fallback: str = ""
    sources: int = 1

    @property
    def started_ns(self) -> int:
        """See `Began`."""
        return self.began.started_ns

    @property
    def compiled(self) -> WindowsCompile:
        """The compile that runs."""
        return self.asked.compiled


class ResultKeeper:
    """Checks and stores results. Thread-safe.

    `is_known` notes what launchers wrote by themselves, and tells whether all of that is known.
    """

    def __init__(
        self,
        disk: CacheDisk,
        host: ClHost,
        results: Results,
        precompiled: PrecompiledRecords,
        is_known: Callable[[], bool],
        settings: CacheSettings,
    ) -> None:
        self._is_known = is_known
        self._disk, self._host, self._results = disk, host, results
        self._precompiled = precompiled
        self._max_output_bytes, self._texts = settings.max_entry_bytes, Texts()
        self._restores_cl_pch = settings.restore_cl_pch

    def keep(
        self, pending: WindowsPending, report: RunReport, names: tuple[str, ...]
    ) -> tuple[bytes, str]:
        """Store a result; return its key, and why it is not shared ("" without a marker, too).

        `names` are the headers that the compiler listed. The report has its output without a list
        that only hpcc asked for.

        Raises:
            UncacheableError: it must not be stored.
            NotPortableError: the compiler does not list where it searches.
        """
        compiled, stdout = pending.compiled, report.stdout
        if report.is_truncated:
            raise UncacheableError(UncacheableReason.LONG_DIAGNOSTICS)
        if stdout and report.stderr and not compiled.lists:
            raise UncacheableError(UncacheableReason.BOTH_STREAMS)
        data, *side = (self._output(pending, path) for path in compiled.outputs)
        depfile = None if compiled.depfile is None else side.pop()
        if compiled.reads_depfile:
            names = names_in(depfile or b"")
        self._check_database(pending)
        search = self._search(compiled)
        used = self._precompiled.used(compiled, search)
        share = None if pending.private else pending.asked.share
        inputs = self._inputs(compiled, pending.began, names, data, search, used, share)
        self._check_end(pending)
        if compiled.made is not None:
            self._precompiled.remember(compiled, search, inputs, side[0])
            if reason := self._why_not_restored(compiled, compiled.made):
                raise UncacheableError(reason)
        result = Result(data, depfile, stdout, report.stderr, tuple(side))
        key, private = pending.key, pending.private
        if share is not None:
            inputs = _with_ways(inputs, names, share.root, compiled.cwd)
            private = why_result_is_private(share, inputs, search, result)
        kept = make_set(key, inputs.files, inputs.present, inputs.absences)
        if share is not None and not private:
            key, result = share.key, share.marked(result)
            kept = make_set(key, *share.marked_inputs(inputs))
        if self._results.keep_set(key, kept, result) is None:
            raise UncacheableError(UncacheableReason.STORE)
        return key, private

    def keep_image(
        self,
        compiled: WindowsCompile,
        began: Began,
        key: bytes,
        names: tuple[str, ...],
        made: Result,
        sent: Mapping[bytes, bytes],
    ) -> None:
        """Store what a farm's image made under a key that names it.

        `names` are the headers that this machine's compiler listed before, `sent` the paths and
        digests of the files that went to the farm. What was only asked for is one of its inputs,
        too: the guest, whose own headers may differ, can have read it.

        Raises:
            UncacheableError: it must not be stored.
            NotPortableError: the compiler does not list where it searches.
        """
        search = self._search(compiled)
        inputs = self._inputs(compiled, began, names, made.object_data, search)
        self._check_unchanged(compiled, began)
        files = {windows_key(path.decode()): (path, digest) for path, digest in inputs.files}
        for path, digest in sent.items():
            _, now = files.setdefault(windows_key(path.decode()), (path, digest))
            if now != digest:
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        kept = make_set(key, tuple(files.values()), inputs.present, inputs.absences)
        if self._results.keep_set(key, kept, made) is None:
            raise UncacheableError(UncacheableReason.STORE)

    def _inputs(
        self,
        compiled: WindowsCompile,
        began: Began,
        names: tuple[str, ...],
        data: bytes,
        search: tuple[WindowsPath, ...],
        used: UsedHeader | None = None,
        share: WindowsShare | None = None,
    ) -> Inputs:
        """Return the state of files in which the object `data` is the right one."""
        paths = _texts_read(compiled, names, used)
        in_arguments = scan_arguments(
            compiled.family.text_arguments(compiled.invocation), compiled.invocation.macros
        )
        inputs = find_inputs(
            self._disk,
            self._texts,
            CompileFiles(
                cwd=compiled.cwd,
                files=paths,
                data=(used.path,) if used else (),
                search=search,
                forced=compiled.invocation.forced_includes,
                in_arguments=in_arguments,
                started_ns=began.started_ns,
                names_before=began.names_before,
                settle=partial(self._settle, compiled, paths),
                share=share,
            ),
        )
        if mentions_clock(data, began.started_ns, time.time_ns()):
            self._settle(compiled, paths, Hazard.PASTED_CLOCK)
        return inputs

    def _check_unchanged(self, compiled: WindowsCompile, began: Began) -> None:
        """Check that command, compiler and clock are as they were.

        Raises:
            UncacheableError: they are not.
        """
        again = read_compile(self._disk, compiled.request)
        if isinstance(again, Bypass) or again.key != compiled.key:
            # A response file, or a part of the compiler.
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        if abs(step_ns() - began.step_ns) > _MAX_STEP_NS:
            raise UncacheableError(UncacheableReason.CLOCK_SET)

    def _check_end(self, pending: WindowsPending) -> None:
        """Check what `_check_unchanged` does, and that no other compile wrote here.

        Raises:
            UncacheableError: it is not so.
        """
        self._check_unchanged(pending.compiled, pending.began)
        if not (self._is_known() and pending.writer.is_alone):
            # Whose object it is, nobody knows.
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)

    def may_be_put(self, compiled: WindowsCompile, result: Result) -> bool:
        """Tell whether a stored result may be put in place of the compile."""
        if (result.depfile is None) is not (compiled.depfile is None):
            return False
        if len(contents_of(result)) != len(compiled.outputs):
            return False
        if compiled.made is not None and self._why_not_restored(compiled, compiled.made):
            return False  # it was stored with another setting
        return all(self._precompiled.has_record(compiled, data) for data in result.side)

    def _why_not_restored(
        self, compiled: WindowsCompile, made: Precompiled
    ) -> UncacheableReason | None:
        """Return why a precompiled header is not put back; None if it is."""
        if compiled.family.has_local_cache:
            # With the times of its headers in it, it is an error for its users.
            return UncacheableReason.PCH_TIMESTAMP if made.has_times else None
        return None if self._restores_cl_pch else UncacheableReason.PCH_OF_CL

    def _output(self, pending: WindowsPending, output: WindowsPath) -> bytes:
        """Return an output, which this compile must have written."""
        path = str(output)
        times = self._disk.times(path, is_at_rest=True)
        is_new = times is not None and times.may_have_changed_since(pending.started_ns)
        data = self._disk.read(path, self._max_output_bytes) if is_new else None
        if data is None:
            raise UncacheableError(UncacheableReason.OUTPUT_UNREADABLE)
        return data

    def _check_database(self, pending: WindowsPending) -> None:
        """Check that no program database was written where `/Fd` of cl says.

        Raises:
            UncacheableError: one may have been, or the place is not certain.
        """
        compiled = pending.compiled
        named = compiled.family.database_of(compiled.invocation)
        if named is None:
            return
        try:
            path = str(parse_windows_path(named.decode(), cwd=compiled.cwd))
        except (WindowsPathError, UnicodeDecodeError) as error:
            raise UncacheableError(UncacheableReason.PDB) from error
        names = self._disk.entries(path)  # a directory: cl then chooses the name
        inside = (f"{path}\\{name}" for name in names or () if name.lower().endswith(".pdb"))
        for place in (*inside, *(() if names is not None else (path, f"{path}.pdb"))):
            times = self._disk.times(place, is_at_rest=False)
            if times is not None and times.may_have_changed_since(pending.started_ns):
                raise UncacheableError(UncacheableReason.PDB, place.encode())

    def _search(self, compiled: WindowsCompile) -> tuple[WindowsPath, ...]:
        own = self._host.search(compiled.request, compiled.invocation).directories
        listed = search_directories(compiled.request, compiled.invocation)
        try:
            return tuple(
                parse_windows_path(directory.decode(), cwd=compiled.cwd)
                for directory in (*listed, *own)
            )
        except (WindowsPathError, UnicodeDecodeError) as error:
            raise UncacheableError(UncacheableReason.SEARCH_PATH) from error

    def _settle(
        self,
        compiled: WindowsCompile,
        paths: tuple[WindowsPath, ...],
        doubts: Hazard,
    ) -> None:
        """Settle doubts by the preprocessor's output.

        Raises:
            UncacheableError: a clock or a file of the assembler is in it.
        """
        started_ns = time.time_ns()
        try:
            text = self._host.expanded(compiled.request, compiled.invocation)
        except NotPortableError as error:
            raise UncacheableError(UncacheableReason.EXPANSION_FAILED) from error
        if doubts & CLOCKS:
            files = [str(path).encode() for path in paths]
            refuse_clocks(text, files, started_ns=started_ns, is_pinned=False)
        if doubts & ~CLOCKS and compiled.family.has_local_cache:
            found = read_statements(text)
            if found.is_opaque or found.names:
                raise UncacheableError(UncacheableReason.INCBIN)


def contents_of(result: Result) -> tuple[bytes, ...]:
    """Return the contents of a result in the order of `WindowsCompile.outputs`."""
    depfile = () if result.depfile is None else (result.depfile,)
    return (result.object_data, *result.side, *depfile)


def _texts_read(
    compiled: WindowsCompile, names: tuple[str, ...], used: UsedHeader | None
) -> tuple[WindowsPath, ...]:
    """Return the source, what the compiler listed, and what a precompiled header was made of."""
    paths = (compiled.source, *(_listed(name, compiled.cwd) for name in names))
    if used is None:
        return paths
    # A depfile lists the precompiled header as well, which is not a text.
    listed = tuple(path for path in paths if key_of(path) != key_of(used.path))
    return listed + used.texts


def _with_ways(
    inputs: Inputs, names: tuple[str, ...], root: WindowsPath, cwd: WindowsPath
) -> Inputs:
    """Return the inputs with the ways of listed files, which may be behind a macro."""
    is_out = any(leaves(name, root, cwd) for name in names)
    return inputs._replace(leads_out=inputs.leads_out or is_out)


def _listed(name: str, cwd: WindowsPath) -> WindowsPath:
    try:
        return parse_windows_path(name, cwd=cwd)
    except WindowsPathError as error:
        raise UncacheableError(UncacheableReason.UNCLEAR_NAME, name.encode()) from error


def step_ns() -> int:
    """Return a number that changes when somebody sets the clock."""
    return time.time_ns() - time.monotonic_ns()
