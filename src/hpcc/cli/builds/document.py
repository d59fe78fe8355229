"""The report as one JSON document; docs/builds.md describes it."""

from __future__ import annotations

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.link_record import LinkRecord
from hpcc.cache.recorder.report import BuildReport
from hpcc.cli.builds.words import words_of

FORMAT = 1


def document_of(report: BuildReport) -> dict[str, object]:
    """Return the document. Times are seconds, moments seconds since the epoch."""
    return {
        "format": FORMAT,
        "build": report.build,
        "began_at": _seconds(report.began_us),
        "ended_at": _seconds(report.ended_us),
        "took_seconds": _seconds(report.ended_us - report.began_us),
        "busy_seconds": _seconds(report.busy_us),
        "compiles": report.compiles,
        "lookups": report.lookups,
        "hits": report.served,
        "counts": {kind.value: count for kind, count in report.counts.items()},
        "seconds": {kind.value: _seconds(us) for kind, us in report.took.items()},
        "phases": {phase.value: _seconds(us) for phase, us in report.phases.items()},
        "at_once": {"most": report.at_once, "average": round(report.average_at_once, 3)},
        "perfect_cache": {
            "compiles": report.compiled, "saved_seconds": _seconds(report.compiled_us),
        },
        "hits_saved_seconds": _seconds(report.saved_us),
        "causes": [
            {
                "family": cause.family,
                "reason": cause.word,
                "compiles": cause.compiles,
                # The compiler after a bypass is not observed.
                "seconds": None if cause.family == "bypass" else _seconds(cause.took_us),
                "text": words_of(cause.family, cause.word).text,
                "remedy": words_of(cause.family, cause.word).remedy,
                "example": cause.example.source or cause.example.output,
            }
            for cause in report.causes
        ],
        "changed": [
            {"path": c.path, "compiles": c.compiles, "seconds": _seconds(c.took_us)}
            for c in report.changed
        ],
        "places": [
            {
                "worker": place.where or None,
                "compiles": place.compiles,
                "seconds": _seconds(place.took_us),
            }
            for place in report.places
        ],
        "slowest": [_compile(c) for c in report.slowest],
        "chain": [_compile(c) for c in report.chain],
        "links": [_link(link) for link in report.links],
        "left_out": report.left_out,
        "is_damaged": report.is_damaged,
    }  # fmt: skip


def _compile(c: Compile) -> dict[str, object]:
    return {
        "source": c.source,
        "output": c.output,
        "outcome": c.outcome,
        "reason": c.reason,
        "fallback": c.fallback,
        "worker": c.where or None,
        "guest": c.guest or None,
        "began_at": _seconds(c.began_us),
        "seconds": _seconds(c.took_us),
        "bytes": c.size_bytes,
        "phases": [
            [part.phase.value, _seconds(part.offset_us), _seconds(part.took_us)]
            for part in c.phases
        ],
    }


def _link(link: LinkRecord) -> dict[str, object]:
    return {
        "output": link.output.path,
        "digest": link.output.digest,
        "bytes": link.size_bytes,
        "began_at": _seconds(link.began_us),
        "seconds": _seconds(link.took_us),
        "directory": link.cwd,
        "compiler": link.compiler,
        "tools": link.tools,
        "command": link.command,
        "command_digest": link.command_digest,
        "inputs": [[file.path, file.digest] for file in link.inputs],
        "inputs_digest": link.inputs_digest,
        "left_out": link.left_out,
        "is_complete": link.is_complete,
    }


def _seconds(us: int) -> float:
    return us / 1_000_000
