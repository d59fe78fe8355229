"""What caches served, why the rest missed, and how full the workers' stores are."""

from __future__ import annotations

from typing import Final

from hpcc.cli.builds.parts import panel, table, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import percent
from hpcc.cli.web.overview.choosing import choice_form
from hpcc.cli.web.overview.front import FarmSeen
from hpcc.cli.web.overview.outcome_chart import series_spark, span_words
from hpcc.cli.web.overview.reasons import reasons_panel
from hpcc.cli.web.parts.farm_panels import farm_footer
from hpcc.cli.web.parts.farm_parts import Figure, figures, heading, tenant_name
from hpcc.cli.web.parts.shell import Page
from hpcc.cli.web.parts.sums import Outcomes
from hpcc.rpc.scheduler.farm_picture import FarmPicture

ADDRESS: Final = "cache"
_MAX_TENANTS: Final = 50
_MAX_WORKERS: Final = 50
_CLAIMED: Final = "Counts are what clients say of their builds."


def cache_page(seen: FarmSeen, root: str) -> Page:
    """Return the page. A member's has the member's tenant only, as all that was sent."""
    picture, sums = seen.picture, seen.sums
    choice = choice_form(
        f"{root}/{ADDRESS}", sums.choice, seen.kept.builds, is_operator=picture.is_operator
    )
    when = span_words(sums.choice.hours)
    whole = sums.whole
    sub = f"<b>{whole.cache:,.0f} of {whole.compiles:,.0f} compiles were served.</b> {_CLAIMED}"
    sub += f" {text(seen.lack())}"
    missed = sums.causes_of(("missed",))
    reasons = reasons_panel(
        "Why the rest missed", missed, when, seen.nothing("No client has told of a miss."), "farm"
    )
    main = (
        heading("Cache", sub, f'<div class="side">{choice}</div>')
        + (f'<p class="panel warn">Builds are not shown: {text(seen.trouble)}</p>'
           if seen.trouble else "")
        + figures(_figures(sums))
        + f'<div class="grid two">{reasons}{_tenants(seen, root)}</div>'
        + (_stores(picture, root) if picture.is_operator else "")
        + farm_footer(picture)
    )  # fmt: skip
    return Page("Cache", main, is_live=True, section="Cache")


def _figures(sums: Outcomes) -> list[Figure]:
    whole, when = sums.whole, span_words(sums.choice.hours)
    every, missed = round(whole.compiles), round(whole.compiles) - round(whole.cache)
    evicted = round(sums.causes.get(("missed", "evicted"), 0.0))
    rates = [p.cache / p.compiles if p.compiles else 0.0 for p in sums.bins]
    return [
        Figure("From a cache", percent(round(whole.cache), every), "",
               f"of what can be served, {when}", series_spark(rates, "hit")),
        Figure("Compiled in guests", f"{whole.farm:,.0f}", "", f"of {missed:,} not served"),
        Figure("Compiled here", f"{whole.here + whole.instead:,.0f}", "",
               f"{whole.instead:,.0f} instead of the farm"),
        Figure("Evicted", f"{evicted:,}", "", "misses whose result had been there"),
        Figure("Tenants", f"{len(sums.tenants):,}", "", "with builds in this time"),
        Figure("Reports", f"{sums.reports:,}", "", "of machines that built"),
    ]  # fmt: skip


def _tenants(seen: FarmSeen, root: str) -> str:
    picture, sums = seen.picture, seen.sums
    title, note = "By tenant", span_words(sums.choice.hours)
    if not sums.tenants:
        none = seen.nothing("No client has told of a build in this time.")
        return panel(title, f'<p class="pad note">{none}</p>', note)
    shown = {tenant.tenant for tenant in picture.tenants}
    rows = ""
    for name, ends in sorted(sums.tenants.items())[:_MAX_TENANTS]:
        every, cache = round(ends.compiles), round(ends.cache)
        linked = tenant_name(name, root) if name in shown else text(name)
        rows += (
            f'<tr><td><b>{linked}</b></td><td class="n">{every:,}</td>'
            f'<td class="bar">{length_bar("hit", cache, every)}</td>'
            f'<td class="n">{percent(cache, every)}</td></tr>'
        )
    columns = ("Tenant", "#Compiles", "", "#From a cache")
    return panel(title, table(title, columns, rows), note)


def _stores(picture: FarmPicture, root: str) -> str:
    title = "Stores of workers"
    rows = "".join(
        f'<tr><td><b><a href="{root}/worker/{text(w.worker_id)}">{text(w.worker_id)}</a></b></td>'
        f'<td class="n">{w.store_bytes >> 20:,} MiB</td>'
        f'<td class="bar">{length_bar("rest", w.store_bytes, w.store_limit_bytes)}</td>'
        f'<td class="n">{w.store_limit_bytes >> 20:,} MiB</td></tr>'
        for w in picture.workers[:_MAX_WORKERS]
        if w.store_limit_bytes
    )
    if not rows:
        return panel(title, '<p class="pad note">No worker has told of its store.</p>')
    columns = ("Worker", "#Stored", "", "#May take")
    note = f"blobs of the tenants that each has served; the first {_MAX_WORKERS} workers"
    return panel(title, table(title, columns, rows), note)
