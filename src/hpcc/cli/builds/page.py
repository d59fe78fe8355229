"""The report as one page of HTML: no script, no request, and a policy that forbids both.

All text of a record goes through `_text`: names of files are hostile. The policy names the style
sheet by its hash, so nothing else that a name might smuggle in is obeyed either.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from hpcc import __version__
from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.report import BuildReport, Cause
from hpcc.cache.root.build_identity import is_guessed
from hpcc.cli.builds.style import STYLE
from hpcc.cli.builds.text import cost_of
from hpcc.cli.builds.timeline import Span, class_of, length_bar, share_bar, timeline
from hpcc.cli.builds.words import (
    KINDS,
    PHASES,
    below,
    common_directory,
    duration,
    moment,
    name_of,
    percent,
    place_of,
    words_of,
)
from hpcc.obs.text import one_line

_LEGEND: Final = {
    "hit": "from a cache", "farm": "on the farm", "here": "here", "fallback": "here instead",
    "not-kept": "not stored", "failed": "failed",
}  # fmt: skip
_TAGS: Final = {**_LEGEND, "rest": "other"}
_MAX_CHANGED: Final = 20
_MAX_CHAIN: Final = 15
_CODE: Final = r"<code>\1</code>"
_QUOTED: Final = re.compile(r"`([^`]+)`")
_SHARES: Final = (
    CompileKind.FARM,
    CompileKind.HERE,
    CompileKind.NOT_KEPT,
    CompileKind.FAILED,
    CompileKind.FARM_CACHE,
    CompileKind.HIT,
)


def page_of(report: BuildReport, recorded: RecordedBuild) -> str:
    """Return the page."""
    base = common_directory(recorded.compiles)
    span = Span(report.began_us, report.ended_us - report.began_us)
    drawing, left_out = timeline(recorded.compiles, span, base)
    used = {class_of(c) for c in recorded.compiles}
    body = (
        _head(report, base)
        + _figures(report)
        + _panel(
            "Time line",
            f'<div class="pad">{drawing}</div>',
            f"the {left_out} shortest are not drawn" if left_out else "a row is a slot",
            _legend(style for style in _LEGEND if style in used),
        )
        + _shares(report)
        + f'<div class="grid two">{_causes(report, base)}<div class="stack">'
        + f"{_changed(report, base)}{_chain(report, base)}</div></div>"
        + _slowest(report, base)
        + _foot(report)
    )
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{_text(report.build)}: hpcc report</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _text(text: object) -> str:
    return escape(one_line(text))


def _panel(title: str, content: str, note: str = "", right: str = "") -> str:
    more = f'<span class="note">{_text(note)}</span>' if note else ""
    return (
        f'<section class="panel grid-item"><header><h2>{_text(title)}</h2>{more}{right}</header>'
        f"{content}</section>"
    )


def _head(report: BuildReport, base: str) -> str:
    guess = " · guessed: no variable named the build" if is_guessed(report.build) else ""
    below = f" · below <code>{_text(base)}</code>" if base else ""
    warnings = []
    if report.is_damaged:
        warnings.append("A part of the record could not be read, and is left out.")
    if report.left_out:
        warnings.append(f"{report.left_out} older compiles are left out.")
    return (
        f"<h1>{_text(report.build)}</h1>"
        f'<p class="sub">{moment(report.began_us)} to {moment(report.ended_us)}{guess}{below}</p>'
        + "".join(f'<p class="panel warn">{_text(text)}</p>' for text in warnings)
    )


def _figures(report: BuildReport) -> str:
    took = report.ended_us - report.began_us
    ran = sum(
        report.counts.get(kind, 0)
        for kind in (CompileKind.FARM, CompileKind.HERE, CompileKind.NOT_KEPT)
    )
    on_farm = report.counts.get(CompileKind.FARM, 0)
    failed, bypassed = (
        report.counts.get(kind, 0) for kind in (CompileKind.FAILED, CompileKind.BYPASS)
    )
    figures = (
        ("Took", duration(took), f"compiles under way for {duration(report.busy_us)}"),
        ("Compiles", f"{report.compiles:,}",
         f"{failed} failed, {bypassed} bypassed"),
        ("From a cache", percent(report.served, report.lookups),
         f"{report.served:,} of {report.lookups:,} that a cache can serve"),
        ("Compiled", f"{ran:,}", f"{on_farm:,} on the farm, {ran - on_farm:,} here"),
        ("At once", f"{report.average_at_once:.1f}", f"on average; {report.at_once} at most"),
        ("A perfect cache saves", duration(report.compiled_us),
         f"of compiling; hits saved {duration(report.saved_us)}" if report.saved_us
         else "of compiling"),
    )  # fmt: skip
    rows = "".join(
        f'<div class="kpi"><dt>{_text(name)}</dt><dd class="v">{_text(value)}</dd>'
        f'<dd class="d">{_text(more)}</dd></div>'
        for name, value, more in figures
    )
    return f'<dl class="panel kpis">{rows}</dl>'


def _legend(styles: Iterable[str]) -> str:
    rows = "".join(
        f'<li><svg width="9" height="9" aria-hidden="true"><rect class="{style}" width="9" '
        f'height="9" rx="2"/></svg>{_LEGEND[style]}</li>'
        for style in styles
    )
    return f'<ul class="legend">{rows}</ul>'


def _shares(report: BuildReport) -> str:
    styles = {CompileKind.FARM_CACHE: "hit", CompileKind.HIT: "hit"}
    shares = [
        (styles.get(kind, kind.value), f"{KINDS[kind]}: {duration(report.took[kind])}",
         report.took[kind])
        for kind in _SHARES
        if report.took.get(kind)
    ]  # fmt: skip
    rows = "".join(
        f'<tr><td>{_text(KINDS[kind])}</td><td class="n">{count:,}</td>'
        f'<td class="n">{duration(report.took[kind])}</td></tr>'
        for kind in CompileKind
        if (count := report.counts.get(kind, 0))
    )
    phases = "".join(
        f'<tr><td>{_text(PHASES[phase])}</td><td class="n">{duration(us)}</td></tr>'
        for phase, us in report.phases.items()
    )
    content = (
        f'<div class="pad">{share_bar(shares, 14)}</div><div class="grid two">'
        + _table("Compiles by their end", ("End", "#Compiles", "#Time"), rows)
        + _table("Parts of compiles", ("Part, inside the one above it or beside", "#Time"), phases)
        + "</div>"
    )
    return _panel("Where the time went", content, "sums over all compiles")


def _table(label: str, columns: Sequence[str], rows: str, style: str = "") -> str:
    """Return a table that a keyboard can scroll; `#` marks a column of numbers."""
    heads = "".join(
        f'<th scope="col" class="n">{_text(name[1:])}</th>' if name.startswith("#")
        else f'<th scope="col">{_text(name)}</th>'
        for name in columns
    )  # fmt: skip
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(label)}">'
        f'<table class="{style}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _causes(report: BuildReport, base: str) -> str:
    most = max((cause.took_us for cause in report.causes), default=0)
    rows = "".join(_cause(cause, base, most) for cause in report.causes)
    if not rows:
        return _panel("Why it was not served", '<p class="pad note">Everything was.</p>')
    columns = ("Reason, and what to do", "#Compiles", "#They took")
    return _panel(
        "Why it was not served", _table("Reasons", columns, rows), "with what these compiles took"
    )


def _cause(cause: Cause, base: str, most_us: int) -> str:
    words = words_of(cause.family, cause.word)
    style = "fallback" if cause.family in {"fallback", "refused"} else "here"
    bar = length_bar("failed" if cause.family == "failed" else style, cause.took_us, most_us)
    text = f": {_text(words.text)}" if words.text else ""
    return (
        f'<tr class="why"><td><b>{_text(words.title)}</b>{text}{bar}'
        f'<span class="note">{_QUOTED.sub(_CODE, _text(words.remedy))}</span>'
        f'<span class="note">for example <code>{_text(name_of(cause.example, base))}</code></span>'
        "</td>"
        f'<td class="n">{cause.compiles:,}</td><td class="n">{cost_of(cause)}</td></tr>'
    )


def _changed(report: BuildReport, base: str) -> str:
    if not report.changed:
        return ""
    most = report.changed[0].took_us
    rows = "".join(
        f"<tr><td><code>{_text(below(c.path, base))}</code></td>"
        f'<td class="n">{c.compiles:,}</td>'
        f'<td class="bar">{length_bar("here", c.took_us, most)}</td>'
        f'<td class="n">{duration(c.took_us)}</td></tr>'
        for c in report.changed[:_MAX_CHANGED]
    )
    content = _table("Inputs that changed", ("Input", "#Compiles", "", "#They took"), rows)
    return _panel("Inputs that changed", content, "a compile counts for one of its inputs")


def _chain(report: BuildReport, base: str) -> str:
    if not report.chain:
        return ""
    most = max(c.took_us for c in report.chain)
    rows = "".join(
        f"<tr><td><code>{_text(name_of(c, base))}</code></td>"
        f'<td class="n">{duration(c.began_us - report.began_us)}</td>'
        f'<td class="bar">{length_bar(class_of(c), c.took_us, most)}</td>'
        f'<td class="n">{duration(c.took_us)}</td></tr>'
        for c in report.chain[-_MAX_CHAIN:]
    )
    content = _table("Longest chain", ("Compile", "#Began after", "", "#Took"), rows)
    note = "each began after the one before it had ended"
    if len(report.chain) > _MAX_CHAIN:
        note += f"; the last {_MAX_CHAIN} of {len(report.chain)}"
    return _panel("Longest chain", content, note)


def _slowest(report: BuildReport, base: str) -> str:
    if not report.slowest:
        return ""
    most = report.slowest[0].took_us
    rows = "".join(_slow(c, base, most) for c in report.slowest)
    columns = ("File", "End", "Where", "Because", "", "#Took", "Its parts")
    content = _table("Slowest compiles", columns, rows, "wide")
    return f'<div class="grid">{_panel("Slowest compiles", content)}</div>'


def _slow(c: Compile, base: str, most_us: int) -> str:
    style = class_of(c)
    parts = ", ".join(f"{PHASES[p.phase]} {duration(p.took_us)}" for p in c.phases)
    reason = c.fallback_word or c.reason
    return (
        f'<tr><td class="file"><code>{_text(name_of(c, base))}</code></td>'
        f'<td><span class="tag t-{style}">{_TAGS[style]}</span></td>'
        f'<td>{_text(place_of(c))}</td><td class="word">{_text(reason)}</td>'
        f'<td class="bar">{length_bar(style, c.took_us, most_us)}</td>'
        f'<td class="n">{duration(c.took_us)}</td><td class="note">{_text(parts)}</td></tr>'
    )


def _foot(report: BuildReport) -> str:
    return (
        f"<footer><span>hpcc {_text(__version__)}</span>"
        "<span>Times are this machine's.</span>"
        "<span>A compiler that ran after a bypass is not observed.</span>"
        f"<span>{report.compiles:,} compiles recorded</span></footer>"
    )
