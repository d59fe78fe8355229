"""The first page of a farm: is it well, what becomes of compiles, what wants attention."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from hpcc.cli.builds.farm_words import lacking
from hpcc.cli.builds.parts import panel, table, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import duration, percent
from hpcc.cli.web.overview.choosing import choice_form
from hpcc.cli.web.overview.outcome_chart import NONE_TOLD, outcome_panel, series_spark, span_words
from hpcc.cli.web.overview.reasons import reasons_panel
from hpcc.cli.web.parts.farm_builds import ADDRESS, is_reported, outcome_bar, tenant_link
from hpcc.cli.web.parts.farm_chart import Value, load_panel, spark
from hpcc.cli.web.parts.farm_events import newest_events_panel
from hpcc.cli.web.parts.farm_panels import (
    farm_footer,
    schedulers_panel,
    sentence,
    tenants_panel,
    wait_words,
    workers_panel,
)
from hpcc.cli.web.parts.farm_parts import (
    Figure,
    count,
    dot,
    figures,
    heading,
    health_tag,
    tag,
    warnings,
)
from hpcc.cli.web.parts.farm_routes import routes_panel
from hpcc.cli.web.parts.shell import Page
from hpcc.cli.web.parts.sums import Outcomes, ends_of
from hpcc.core.build_summary import INSTEAD
from hpcc.routing.load import LoadSample
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuilds, by_build
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.observe import WorkerStatus
from hpcc.rpc.scheduler.recent_events import SeenEvents

# Of a large farm this page shows the first ones; the others have pages.
_MAX_WORKERS: Final = 20
_MAX_TENANTS: Final = 20
_MAX_WARNINGS: Final = 5
_MAX_BUILDS: Final = 8
_MAX_EVENTS: Final = 8
_DAY_SECONDS: Final = 80_000.0
_BUILD_COLUMNS: Final = ("Build", "Last report", "Who", "#Took", "#Compiles", "Outcome", "#Cache")


class FarmSeen(NamedTuple):
    """What the front page is made of. `trouble` says why `kept` has no builds, "" if it has."""

    picture: FarmPicture
    samples: Sequence[LoadSample]
    kept: KeptBuilds
    sums: Outcomes
    trouble: str = ""
    # For an operator.
    events: SeenEvents | None = None

    def nothing(self, words: str) -> str:
        """Return what a box without rows says: `words`, if builds are known at all."""
        if self.trouble:
            return "Nothing is known of it: builds are not shown."
        if not self.kept.keep_seconds:
            return "Nothing is known of it: this farm keeps no builds."
        return words

    def lack(self) -> str:
        """Return what the sums lack of the time that they are about; "" if nothing."""
        kept, began_at = self.kept, self.sums.began_at
        if not kept.keep_seconds:
            return ""
        is_cut = any(kept.builds) and min(b.reported_at for b in kept.builds) > began_at
        left_out = max(kept.kept - len(kept.builds), 0) if is_cut else 0
        said = lacking(kept.silent, left_out)
        since = max(kept.since, self.picture.farm_at - kept.keep_seconds)
        if since <= began_at:
            return said
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(since))
        return f"Builds are known since {when} only. {said}".rstrip()


def farm_page(seen: FarmSeen, root: str) -> Page:
    """Return the page: for an operator everything, for a member what members may see.

    The samples are the load of the last hour, which only operators get.
    """
    picture, samples, kept, sums, trouble, events = seen
    found = picture.warnings
    more = len(found) - _MAX_WARNINGS
    rest = f'<p class="note">and {more} more</p>' if more > 0 else ""
    sub = f"<b>{text(sentence(picture))}</b> {_answers(picture)}"
    drawn = outcome_panel(sums, seen.nothing(NONE_TOLD))
    choice = choice_form(f"{root}/", sums.choice, kept.builds, is_operator=picture.is_operator)
    main = (
        heading("Farm", sub, f'<div class="side">{health_tag(picture)}{choice}</div>')
        + warnings(found[:_MAX_WARNINGS])
        + rest
        + (f'<p class="panel warn">Builds are not shown: {text(trouble)}</p>' if trouble else "")
        + (f'<p class="note">{text(seen.lack())}</p>' if seen.lack() else "")
        + figures(_figures(seen))
        + f'<div class="grid wide-left">{drawn}{_instead(seen)}</div>'
    )
    if picture.is_operator:
        every, link = picture.workers, '<a class="more" href="{}/{}">{}</a>'
        workers = link.format(root, "workers", "all workers")
        main += workers_panel(every[:_MAX_WORKERS], len(every), root, workers)
    tenants = tenants_panel(
        picture.tenants[:_MAX_TENANTS], root, _more(root, "tenants", "all tenants"), sums.tenants
    )
    main += f'<div class="grid wide-left">{_builds(seen, root)}{tenants}</div>'
    if picture.is_operator:
        drawn = f"{load_panel(samples)}{routes_panel(picture.tenants)}"
        main += f'<div class="grid wide-left">{drawn}</div>'
        main += f'<div class="grid two">{_slowest(seen, root)}{schedulers_panel(picture)}</div>'
        if events is not None:
            alerts = _more(root, "alerts", "all events")
            main += newest_events_panel(events, picture.farm_at, _MAX_EVENTS, root, alerts)
    else:
        main += f'<div class="grid two">{_slowest(seen, root)}{routes_panel(picture.tenants)}</div>'
        main += schedulers_panel(picture)
    return Page("Farm", main + farm_footer(picture), is_live=True, section="Farm")


def _more(root: str, address: str, words: str) -> str:
    return f'<a class="more" href="{root}/{address}">{words}</a>'


def _answers(picture: FarmPicture) -> str:
    said = len(picture.statuses)
    return text(f"{said} of {count(len(picture.answers), 'scheduler', 'schedulers')} answered.")


def _figures(seen: FarmSeen) -> list[Figure]:
    picture, sums = seen.picture, seen.sums
    whole, when = sums.whole, span_words(sums.choice.hours)
    every, none = round(whole.compiles), seen.nothing(f"no client told of one, {when}")
    per_minute = [part.compiles * 60 / sums.bin_seconds for part in sums.bins]
    # The last part is not over: reports come later.
    newest = per_minute[-2]
    return [
        Figure("Compiles a minute", f"{newest:,.0f}", "",
               f"peak {max(per_minute):,.0f}, {when}" if every else none,
               series_spark(per_minute, "farm")),
        Figure("From a cache", *_share(whole.cache, every), f"{whole.cache:,.0f} of {every:,}",
               series_spark(_shares(sums, "cache"), "hit")),
        *(_places(picture, seen.samples) if picture.is_operator else _member_places(picture)),
        Figure("Here instead of the farm", *_share(whole.instead, every),
               count(len(sums.causes_of(INSTEAD)), "reason", "reasons"),
               series_spark(_shares(sums, "instead"), "fallback")),
        Figure("Workers that take compiles", f"{picture.live:,}",
               f"of {len(picture.workers):,}" if picture.is_operator else "",
               f"{picture.draining} draining, {picture.stale} silent",
               spark(seen.samples, lambda load: load.live, "hit")),
    ]  # fmt: skip


def _share(part: float, whole: int) -> tuple[str, str]:
    value = percent(round(part), whole)
    number, _, unit = value.partition(" ")
    return number, unit


def _shares(sums: Outcomes, name: str) -> list[float]:
    return [getattr(p, name) / p.compiles if p.compiles else 0.0 for p in sums.bins]


def _places(picture: FarmPicture, samples: Sequence[LoadSample]) -> list[Figure]:
    serving = picture.serving
    capacity = sum(w.capacity for w in serving)
    running = sum(min(w.running, w.capacity) for w in serving)
    queued = sum(w.queued for w in serving)
    return [
        Figure("Places busy", f"{running:,}", f"of {capacity:,}",
               _peak(samples, lambda load: load.running, running) or f"{capacity - running:,} free",
               spark(samples, lambda load: load.running, "farm")),
        Figure("Compiles that wait", f"{queued:,}", "",
               _longest(serving) or _peak(samples, lambda load: load.queued, queued)
               or "at the workers, for a place",
               spark(samples, lambda load: load.queued, "fallback")),
    ]  # fmt: skip


def _longest(serving: Sequence[WorkerStatus]) -> str:
    """Return the worker at which compiles waited longest lately; "" if none ended waiting.

    A percentile of the farm is not made of those of its workers.
    """
    told = [w for w in serving if w.waits]
    if not told:
        return ""
    most = max(told, key=lambda w: w.wait_p95_seconds)
    return f"95 of 100 waited at most {wait_words(most)}, at {most.worker_id} the longest"


def _member_places(picture: FarmPicture) -> list[Figure]:
    own = next((t for t in picture.tenants if t.tenant == picture.tenant), None)
    room = ("yes", "a worker has a free place") if picture.has_room else ("no", "all are busy")
    granted, wanted = (own.granted, own.wanted) if own is not None else (0, 0)
    note = "granted of wanted, if a limit counts on the farm"
    return [
        Figure("Room", room[0], "", room[1]),
        Figure("Places of your tenant", f"{granted:,}", f"of {wanted:,}", note),
    ]


def _peak(samples: Sequence[LoadSample], value: Value, now: int) -> str:
    """Return the most of the last hour. What is now may be newer than the last sample."""
    most = max((value(s.load) for s in samples), default=0)
    return f"peak {max(most, now):,} in this hour" if samples else ""


def _instead(seen: FarmSeen) -> str:
    sums = seen.sums
    title, note = "Here instead of the farm", f"by reason, {span_words(sums.choice.hours)}"
    none = seen.nothing(
        "The farm did each compile that it should have done, as clients count them."
        if sums.whole.compiles
        else NONE_TOLD
    )
    return reasons_panel(title, sums.causes_of(INSTEAD), note, none)


def _builds(seen: FarmSeen, root: str) -> str:
    picture, tenant = seen.picture, seen.sums.choice.tenant
    every = [b for b in by_build(seen.kept.builds) if tenant in {"", b.last.tenant}]
    note = "the last reports first"
    if not every:
        none = seen.nothing("No client has told of a build yet.")
        return panel("Builds", f'<p class="pad note">{none}</p>', note)
    tenants = ("Tenant",) if picture.is_operator else ()
    columns = (*_BUILD_COLUMNS[:3], *tenants, *_BUILD_COLUMNS[3:])
    rows = "".join(_build_row(picture, build, root) for build in every[:_MAX_BUILDS])
    content = table("Builds", columns, rows, "wide")
    return panel("Builds", content, note, _more(root, ADDRESS, "all builds"))


def _build_row(picture: FarmPicture, build: FarmBuild, root: str) -> str:
    last, s = build.last, build.summary
    tenant = f"<td>{tenant_link(picture, last.tenant, root)}</td>" if picture.is_operator else ""
    ends = ends_of(s)
    return (
        f'<tr><td class="name"><a href="{root}/farm-build/{build.build_id}">{text(s.build)}</a>'
        f'</td><td class="word">{_state(build, picture.farm_at)}</td>'
        f"<td>{text(last.principal)}</td>{tenant}"
        f'<td class="n">{duration((s.ended_ms - s.began_ms) * 1000)}</td>'
        f'<td class="n">{s.compiles:,}</td><td class="share">{outcome_bar(s, 8)}</td>'
        f'<td class="n">{percent(round(ends.cache), round(ends.compiles))}</td></tr>'
    )


def _state(build: FarmBuild, now: float) -> str:
    if is_reported(build, now):
        return tag("farm", "reports now")
    form = "%H:%M" if now - build.last.reported_at < _DAY_SECONDS else "%d %b"
    return dot(time.strftime(form, time.localtime(build.last.reported_at)))


def _slowest(seen: FarmSeen, root: str) -> str:
    sums = seen.sums
    title = "Slowest compiles"
    note = f"the slowest of each build, {span_words(sums.choice.hours)}"
    if not sums.slowest:
        none = seen.nothing("No client has told of a compiler that ran.")
        return panel(title, f'<p class="pad note">{none}</p>', note)
    most = sums.slowest[0].summary.slowest[0].took_ms
    rows = ""
    for report in sums.slowest:
        slow = report.summary.slowest[0]
        style = "farm" if slow.where else "here"
        name = f'<a href="{root}/farm-build/{report.build_id}">{text(report.summary.build)}</a>'
        rows += (
            f'<tr><td class="name">{name}</td><td>{text(slow.where) or "here"}</td>'
            f'<td class="bar">{length_bar(style, slow.took_ms, most)}</td>'
            f'<td class="n">{duration(slow.took_ms * 1000)}</td></tr>'
        )
    columns = ("Build", "Where", "", "#Took")
    return panel(title, table(title, columns, rows, "some"), note)
