"""Turns notes of compiles into what the flight recorder stores.

A hit whose command, outputs and bytes were recorded before is a number in the build's file. The
rest of its cost is here: keep it small, since most compiles are hits.
"""

from __future__ import annotations

from hpcc.cache.base.times import CompileTimes
from hpcc.cache.recorder.compiles import Compile, PhasePart
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cache.results.note import Note, output_of, sources_of


class BuildNotes:
    """Passes notes to a recorder. Used by one thread at a time, as the recorder is."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def take(self, note: Note, saved_ms: int) -> None:
        """Record a compile; `saved_ms` is what the result of a hit took to make, 0 if unknown."""
        build = note.request.build if note.build is None else note.build
        if not build:
            return
        took_us = max(int(note.seconds * 1e6), 0)
        began_us = max(int(note.at * 1e6) - took_us, 0)
        # A replayed hit: the request's times and fallback are of another compile.
        if note.build is None or note.prepared is None:
            self._recorder.add(build, _compile_of(note, began_us, took_us, saved_ms))
            return
        unit = (note.outcome, note.key, note.prepared.output, note.size_bytes, saved_ms)
        if self._recorder.hit(build, unit, began_us, took_us):
            return
        compile_ = _compile_of(note, began_us, took_us, saved_ms)
        if self._recorder.define(build, unit, compile_):
            self._recorder.hit(build, unit, began_us, took_us)

    def flush(self) -> None:
        """Write what was taken."""
        self._recorder.flush()


def _compile_of(note: Note, began_us: int, took_us: int, saved_ms: int) -> Compile:
    ran, times = note.ran, note.request.times
    has_phases = times is not None and note.build is None and note.sources == 1
    return Compile(
        began_us,
        took_us,
        note.outcome,
        _source_of(note),
        output_of(note.request, note.prepared),
        note.reason,
        note.fallback if note.build is None else "",
        ran.worker if ran is not None else "",
        ran.guest if ran is not None else "",
        note.size_bytes,
        saved_ms * 1000,
        note.culprit,
        _phases(times, took_us) if has_phases and times is not None else (),
    )


def _source_of(note: Note) -> str:
    """Return the one source; of several, as a link has, "" if the output names the command."""
    found = sources_of(note.request, note.prepared)
    is_named = len(found) == 1 or not output_of(note.request, note.prepared)
    return found[0] if found and is_named else ""


def _phases(times: CompileTimes, took_us: int) -> tuple[PhasePart, ...]:
    parts = []
    for phase, offset_ns, took_ns in times.parts(took_us * 1000):
        offset_us = offset_ns // 1000
        parts.append(PhasePart(phase, offset_us, (offset_ns + took_ns) // 1000 - offset_us))
    return tuple(parts)
