"""Serves a hit: puts outputs in place, counts and records it, and remembers it as a replay.

This module pins what a hit depends on besides its inputs, for local and farm hits; see `Replays`.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.api import CompileRequest, Done
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.host.identity import Compilers
from hpcc.cache.key.marker import MARKER
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.replay.engine import Plan
from hpcc.cache.replay.replay import NotPinnedError, Pins, Replays
from hpcc.cache.replay.writing import Writer
from hpcc.cache.results.records import HIT, Records
from hpcc.cache.results.results import Found, Result, Results, basis_text, signer_of
from hpcc.cache.root.project_root import RootSearch
from hpcc.wire import launcher as wire

_NEW_FILE_MODE: Final = 0o666

Noter = Callable[[str | None, float | None, float], None]
"""Counts and records a hit: its build, when it ended, how many seconds it took.

The first hit has neither a build nor a time: it ends now, and began when its request came.
"""


class PartHit(NamedTuple):
    """The hit of one source of a command; `key` is the key under which it was found."""

    prepared: Prepared
    found: Found
    key: bytes
    is_by_content: bool = False


class Hits:
    """Serves the hits that `Results` found. Thread-safe."""

    def __init__(  # noqa: PLR0913 - what a hit needs, and the files that it is pinned to
        self,
        replays: Replays,
        results: Results,
        memo: FileMemo,
        compilers: Compilers,
        counters: Counters,
        records: Records,
        *,
        farm_file: bytes | None,
        session_file: bytes,
        trust_file: bytes = b"",
    ) -> None:
        self._replays, self._results, self._memo = replays, results, memo
        self._compilers, self._counters, self._records = compilers, counters, records
        self._farm_file, self._session_file = farm_file, session_file
        self._trust_file = trust_file

    def put(
        self,
        prepared: Prepared,
        found: Found,
        *,
        key: bytes,
        outcome: str,
        root: RootSearch | None = None,
    ) -> bool:
        """Put a stored result in place; False if only the compiler may write the outputs.

        `root` is the search for a root without a marker, if the key depends on one.
        """
        plan = plan_of(prepared, found.result)
        if plan is None or not self._replays.put(plan):
            return False
        note = self._noter(prepared, found, key, outcome)
        note(None, None, 0.0)
        if prepared.replay_ok and prepared.request.frame:
            parts = (PartHit(prepared, found, key),)
            checks = self._pinned(parts, plan, outcome, root)
            self._remember(prepared.request, plan, checks, {found.inputs.result_key: note})
        return True

    def remember_all(self, request: CompileRequest, hits: Sequence[PartHit], answer: Done) -> None:
        """Remember the hits of all sources of one command, which are in place, as one replay."""
        plans = [plan_of(prepared, found.result) for prepared, found, *_ in hits]
        outputs = tuple(output for plan in plans if plan is not None for output in plan.outputs)
        notes = {h.found.inputs.result_key: self._noter(*h[:3], HIT) for h in hits}
        is_plain = all(hit.prepared.replay_ok for hit in hits) and len(notes) == len(hits)
        if plans[0] is None or None in plans or not is_plain or not request.frame:
            return
        done = wire.LauncherDone(answer.exit_code, answer.stdout, answer.stderr)
        plan = plans[0]._replace(outputs=outputs, answer=wire.encode_done(done))
        self._remember(request, plan, self._pinned(hits, plan, HIT, None), notes)

    def writer(self, prepared: Prepared) -> Writer:
        """Note that a compile is about to write its outputs."""
        return self._replays.writing.begin(prepared.outputs)

    def put_new(self, prepared: Prepared, result: Result) -> bool:
        """Put a new result in place, without counting or remembering a hit."""
        plan = plan_of(prepared, result)
        return plan is not None and self._replays.put(plan)

    def _noter(self, prepared: Prepared, found: Found, key: bytes, outcome: str) -> Noter:
        """Return what counts and records this hit."""
        origin = found.result.origin
        signer = signer_of(origin)
        share = None if basis_text(origin) else prepared.share
        is_foreign = share is not None and share.is_foreign(origin)
        made = "hit.signed" if signer else "hit.shared" if is_foreign else ""
        # The function must not hold the data, which the plan of a replay holds already.
        size, result_key = found.result.size_bytes, found.inputs.result_key

        def note(build: str | None, at: float | None, seconds: float) -> None:
            self._counters.add(outcome)
            if made:
                self._counters.add(made)
            self._records.hit(prepared, key, outcome, build, signer, size, at, seconds)
            self._counters.add("bytes.served", size)
            if build is not None:
                self._results.touch(key, result_key)

        return note

    def _pinned(
        self, hits: Sequence[PartHit], plan: Plan, outcome: str, root: RootSearch | None
    ) -> Pins | None:
        """Return the checks of an answer that consists of these hits of one command line.

        None if a stat cannot prove a part of it.
        """
        pins, request = Pins(self._memo), hits[0].prepared.request
        is_signed = any(signer_of(hit.found.result.origin) for hit in hits)
        try:
            # What `hpcc cache trust` and `revoke` write decides whether a signature still counts.
            _pin_file(pins, self._trust_file if is_signed else b"")
            pins.place(request.cwd)
            _pin_variable(pins, hits[0].prepared)
            self._results.pin_epoch(pins)
            self._pin_farm(pins, outcome)
            for prepared in (hit.prepared for hit in hits):
                self._compilers.pin(
                    prepared.identity, request.compiler, request.env, pins, request.cwd
                )
            written = {output.path.rpartition(b"/")[0] for output in plan.outputs}
            pins.inputs(merged([hit.found.inputs for hit in hits]), written)
            for prepared in (hit.prepared for hit in hits):
                _pin_markers(pins, prepared)
            if root is not None:
                _pin_root(pins, root)
        except NotPinnedError:
            return None
        return pins

    def _remember(
        self,
        request: CompileRequest,
        plan: Plan,
        pins: Pins | None,
        notes: Mapping[bytes, Noter],
    ) -> None:
        """Remember a plan with these checks; `notes` count its hits, by the keys of the results."""
        if pins is None:
            return
        noted, cwd, builds = tuple(notes.values()), request.cwd, self._records.builds

        def on_hit(facts: bytes, at: float, seconds: float) -> None:
            build = builds.hit(facts, cwd)
            for note in noted:
                note(build, at, seconds)

        plan = plan._replace(checks=pins.checks())
        frame, is_provisional = request.frame, pins.is_provisional
        if self._replays.remember(frame, plan, on_hit, is_provisional=is_provisional):
            for result_key in notes:
                self._results.release(result_key)

    def _pin_farm(self, pins: Pins, outcome: str) -> None:
        """Pin the configured farm or its absence: with a farm, its results are looked up first.

        Raises:
            NotPinnedError: a local hit while a farm is configured, or the farm file is too new.
        """
        if self._farm_file is None:
            return
        if outcome != HIT:
            pins.quiet(self._farm_file)
            # The farm's last answer counts, too: its policy, and the image's compilers.
            _pin_file(pins, self._session_file)
        elif os.path.lexists(self._farm_file):
            raise NotPinnedError
        else:
            pins.absent_each((self._farm_file,))


def _pin_file(pins: Pins, path: bytes) -> None:
    """Pin a file, or its absence; with b"" do nothing.

    Raises:
        NotPinnedError: it was changed too recently.
    """
    if path and os.path.lexists(path):
        pins.quiet(path)
    elif path:
        pins.absent_each((path,))


def _pin_variable(pins: Pins, prepared: Prepared) -> None:
    """Pin where $PWD leads if it is another text than the working directory.

    Raises:
        NotPinnedError: it leads nowhere.
    """
    pwd = prepared.request.env.get(b"PWD", b"")
    if pwd.startswith(b"/") and pwd != prepared.cwd:
        pins.place(pwd)


def _pin_markers(pins: Pins, prepared: Prepared) -> None:
    """Pin the marker that decides, or the absence of one.

    Raises:
        NotPinnedError: the marker was changed too recently.
    """
    search = prepared.marker_status.search
    if search.marker is None:
        pins.absent_each(posixpath.join(d, MARKER) for d in search.directories)
        return
    *below, root = search.directories
    pins.absent_each(posixpath.join(d, MARKER) for d in below)
    for directory in search.directories:
        pins.place(directory)
    pins.thing(posixpath.join(root, MARKER))


def _pin_root(pins: Pins, search: RootSearch) -> None:
    """Pin what the search for a root without a marker depended on.

    The times of `.git` do not count: they change with each commit.

    Raises:
        NotPinnedError: it met an entry that it refused, or a file that was changed too recently.
    """
    if search.is_odd:
        raise NotPinnedError
    pins.absent_each(search.absent)
    for directory in search.places:
        pins.place(directory)
    for path in search.read:
        pins.quiet(path)


def merged(sets: Sequence[InputSet]) -> InputSet:
    """Return one set that holds where all of these hold; it has no result."""
    if len(sets) == 1:
        return sets[0]
    return InputSet(
        files=tuple({file: None for inputs in sets for file in inputs.files}),
        present=tuple({path: None for inputs in sets for path in inputs.present}),
        absences=tuple(absence for inputs in sets for absence in inputs.absences),
        result_key=b"",
        twins=tuple(twins for inputs in sets for twins in inputs.twins),
    )


def plan_of(prepared: Prepared, result: Result) -> Plan | None:
    """Build the plan for a result: depfile first, object last; None if the outputs differ."""
    written = prepared.written
    if len(result.side) != len(written.side):
        return None
    outputs = [
        OutputFile(path, data, keeps_mode=file.keeps_mode)
        for path, data, file in zip(prepared.side_paths, result.side, written.side, strict=True)
        if data or not file.may_be_missing
    ]
    if prepared.output is not None:
        outputs.append(
            OutputFile(prepared.output, result.object_data, keeps_mode=written.output_keeps_mode)
        )
    elif result.object_data:
        return None
    if prepared.depfile is not None:
        if result.depfile is None:
            return None
        # GCC and Clang truncate the depfile, but mostly create objects anew (binutils, clang).
        outputs.insert(0, OutputFile(prepared.depfile, result.depfile, keeps_mode=True))
    try:
        source = os.stat(prepared.source)
    except OSError:
        return None
    return Plan(
        checks=(),
        outputs=tuple(outputs),
        mode=_NEW_FILE_MODE & ~prepared.request.umask,
        source=(source.st_dev, source.st_ino),
        answer=wire.encode_done(wire.LauncherDone(0, result.stdout, result.stderr)),
    )
