"""The report as one page of HTML: no script, no request, and a policy that forbids both.

All text of a record goes through `text`: names of files are hostile. The policy names the style
sheet by its hash, so nothing else that a name might smuggle in is obeyed either.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from hpcc import __version__
from hpcc.cache.recorder.compiles import CompileKind
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.report import BuildReport, Cause
from hpcc.cache.root.build_identity import is_guessed
from hpcc.cli.builds.parts import (
    COMPILE_COLUMNS,
    LEGEND,
    CompileNames,
    Link,
    compile_row,
    legend,
    no_link,
    panel,
    quoted,
    table,
    text,
)
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
    percent,
    words_of,
)

_MAX_CHANGED: Final = 20
_MAX_CHAIN: Final = 15
_SHARES: Final = (
    CompileKind.FARM,
    CompileKind.HERE,
    CompileKind.NOT_KEPT,
    CompileKind.FAILED,
    CompileKind.FARM_CACHE,
    CompileKind.HIT,
)


def body_of(report: BuildReport, recorded: RecordedBuild, href: Link = no_link) -> str:
    """Return the content of the page, as hpcc web shows it, too. `href` gives a compile's page."""
    base = common_directory(recorded.compiles)
    names = CompileNames(base, href)
    span = Span(report.began_us, report.ended_us - report.began_us)
    drawing, left_out = timeline(recorded.compiles, span, base)
    used = {class_of(c) for c in recorded.compiles}
    return (
        _head(report, base)
        + _figures(report)
        + panel(
            "Time line",
            f'<div class="pad">{drawing}</div>',
            f"the {left_out} shortest are not drawn" if left_out else "a row is a slot",
            legend(style for style in LEGEND if style in used),
        )
        + _shares(report)
        + f'<div class="grid two">{_causes(report, names)}<div class="stack">'
        + f"{_changed(report, base)}{_chain(report, names)}</div></div>"
        + _slowest(report, names)
        + _foot(report)
    )


def page_of(report: BuildReport, recorded: RecordedBuild) -> str:
    """Return the page."""
    body = body_of(report, recorded)
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{text(report.build)}: hpcc report</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _head(report: BuildReport, base: str) -> str:
    guess = " · guessed: no variable named the build" if is_guessed(report.build) else ""
    below = f" · below <code>{text(base)}</code>" if base else ""
    warnings = []
    if report.is_damaged:
        warnings.append("A part of the record could not be read, and is left out.")
    if report.left_out:
        warnings.append(f"{report.left_out} older compiles are left out.")
    return (
        f"<h1>{text(report.build)}</h1>"
        f'<p class="sub">{moment(report.began_us)} to {moment(report.ended_us)}{guess}{below}</p>'
        + "".join(f'<p class="panel warn">{text(line)}</p>' for line in warnings)
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
        f'<div class="kpi"><dt>{text(name)}</dt><dd class="v">{text(value)}</dd>'
        f'<dd class="d">{text(more)}</dd></div>'
        for name, value, more in figures
    )
    return f'<dl class="panel kpis">{rows}</dl>'


def _shares(report: BuildReport) -> str:
    styles = {CompileKind.FARM_CACHE: "hit", CompileKind.HIT: "hit"}
    shares = [
        (styles.get(kind, kind.value), f"{KINDS[kind]}: {duration(report.took[kind])}",
         report.took[kind])
        for kind in _SHARES
        if report.took.get(kind)
    ]  # fmt: skip
    rows = "".join(
        f'<tr><td>{text(KINDS[kind])}</td><td class="n">{count:,}</td>'
        f'<td class="n">{duration(report.took[kind])}</td></tr>'
        for kind in CompileKind
        if (count := report.counts.get(kind, 0))
    )
    phases = "".join(
        f'<tr><td>{text(PHASES[phase])}</td><td class="n">{duration(us)}</td></tr>'
        for phase, us in report.phases.items()
    )
    content = (
        f'<div class="pad">{share_bar(shares, 14)}</div><div class="grid two">'
        + table("Compiles by their end", ("End", "#Compiles", "#Time"), rows)
        + table("Parts of compiles", ("Part, inside the one above it or beside", "#Time"), phases)
        + "</div>"
    )
    return panel("Where the time went", content, "sums over all compiles")


def _causes(report: BuildReport, names: CompileNames) -> str:
    most = max((cause.took_us for cause in report.causes), default=0)
    rows = "".join(_cause(cause, names, most) for cause in report.causes)
    if not rows:
        return panel("Why it was not served", '<p class="pad note">Everything was.</p>')
    columns = ("Reason, and what to do", "#Compiles", "#They took")
    return panel(
        "Why it was not served", table("Reasons", columns, rows), "with what these compiles took"
    )


def _cause(cause: Cause, names: CompileNames, most_us: int) -> str:
    words = words_of(cause.family, cause.word)
    style = "fallback" if cause.family in {"fallback", "refused"} else "here"
    bar = length_bar("failed" if cause.family == "failed" else style, cause.took_us, most_us)
    meaning = f": {text(words.text)}" if words.text else ""
    return (
        f'<tr class="why"><td><b>{text(words.title)}</b>{meaning}{bar}'
        f'<span class="note">{quoted(words.remedy)}</span>'
        f'<span class="note">for example {names.of(cause.example)}</span>'
        "</td>"
        f'<td class="n">{cause.compiles:,}</td><td class="n">{cost_of(cause)}</td></tr>'
    )


def _changed(report: BuildReport, base: str) -> str:
    if not report.changed:
        return ""
    most = report.changed[0].took_us
    rows = "".join(
        f"<tr><td><code>{text(below(c.path, base))}</code></td>"
        f'<td class="n">{c.compiles:,}</td>'
        f'<td class="bar">{length_bar("here", c.took_us, most)}</td>'
        f'<td class="n">{duration(c.took_us)}</td></tr>'
        for c in report.changed[:_MAX_CHANGED]
    )
    content = table("Inputs that changed", ("Input", "#Compiles", "", "#They took"), rows)
    return panel("Inputs that changed", content, "a compile counts for one of its inputs")


def _chain(report: BuildReport, names: CompileNames) -> str:
    if not report.chain:
        return ""
    most = max(c.took_us for c in report.chain)
    rows = "".join(
        f"<tr><td>{names.of(c)}</td>"
        f'<td class="n">{duration(c.began_us - report.began_us)}</td>'
        f'<td class="bar">{length_bar(class_of(c), c.took_us, most)}</td>'
        f'<td class="n">{duration(c.took_us)}</td></tr>'
        for c in report.chain[-_MAX_CHAIN:]
    )
    content = table("Longest chain", ("Compile", "#Began after", "", "#Took"), rows)
    note = "each began after the one before it had ended"
    if len(report.chain) > _MAX_CHAIN:
        note += f"; the last {_MAX_CHAIN} of {len(report.chain)}"
    return panel("Longest chain", content, note)


def _slowest(report: BuildReport, names: CompileNames) -> str:
    if not report.slowest:
        return ""
    most = report.slowest[0].took_us
    rows = "".join(compile_row(c, names, most) for c in report.slowest)
    content = table("Slowest compiles", COMPILE_COLUMNS, rows, "wide")
    return f'<div class="grid">{panel("Slowest compiles", content)}</div>'


def _foot(report: BuildReport) -> str:
    return (
        f"<footer><span>hpcc {text(__version__)}</span>"
        "<span>Times are this machine's.</span>"
        "<span>A compiler that ran after a bypass is not observed.</span>"
        f"<span>{report.compiles:,} compiles recorded</span></footer>"
    )
