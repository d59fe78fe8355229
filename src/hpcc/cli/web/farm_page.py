"""The first page of a farm: is it well, is there room, what wants an operator's attention."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from hpcc.cli.builds.parts import panel, table, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import percent
from hpcc.cli.web.farm_chart import Value, load_panel, spark
from hpcc.cli.web.farm_parts import (
    Figure,
    cells,
    count,
    dot,
    figures,
    heading,
    health_tag,
    state_of,
    tag,
    tenant_name,
    warnings,
)
from hpcc.cli.web.farm_routes import refused, routes_panel
from hpcc.cli.web.shell import Page, footer
from hpcc.core import HpccError
from hpcc.routing.load import LoadSample
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.observe import FarmStatus, TenantStatus, WorkerStatus

# Of a large farm this page shows the first ones; the others have pages.
_MAX_WORKERS: Final = 20
_MAX_TENANTS: Final = 20
_MAX_WARNINGS: Final = 5
WORKER_COLUMNS: Final = (
    "Worker", "State", "Isolation", "Places", "#Busy", "#Wait", "#Images", "#Lost lately",
    "Address",
)  # fmt: skip
TENANT_COLUMNS: Final = ("Tenant", "#Daemons", "", "#Granted", "#Wanted", "#People")
_LIMITS: Final = "places are counted where a limit counts on the whole farm"


def farm_page(picture: FarmPicture, samples: Sequence[LoadSample], root: str) -> Page:
    """Return the page: for an operator everything, for a member what members may see.

    `samples` are the load of the last hour, which only operators get.
    """
    found = picture.warnings
    more = len(found) - _MAX_WARNINGS
    rest = f'<p class="note">and {more} more</p>' if more > 0 else ""
    sub = f"<b>{text(sentence(picture))}</b> {_answers(picture)}"
    main = (
        heading("Farm", sub, health_tag(picture))
        + warnings(found[:_MAX_WARNINGS])
        + rest
        + figures(_of_all(picture, samples) if picture.is_operator else _of_member(picture))
    )
    if picture.is_operator:
        drawn = f"{load_panel(samples)}{routes_panel(picture.tenants)}"
        main += f'<div class="grid wide-left">{drawn}</div>'
        every, link = picture.workers, '<a class="more" href="{}/{}">{}</a>'
        workers = link.format(root, "workers", "all workers")
        tenants = link.format(root, "tenants", "all tenants")
        main += workers_panel(every[:_MAX_WORKERS], len(every), root, workers)
        main += (
            f'<div class="grid two">{tenants_panel(picture.tenants[:_MAX_TENANTS], root, tenants)}'
            f"{_schedulers(picture)}</div>"
        )
    else:
        main += f'<div class="grid two">{routes_panel(picture.tenants)}{_schedulers(picture)}</div>'
    return Page("Farm", main + farm_footer(picture), is_live=True, section="Farm")


def sentence(picture: FarmPicture) -> str:
    """Return in one sentence how the farm is."""
    if not picture.statuses:
        return "No scheduler answers."
    if not picture.live:
        return "No worker takes compiles."
    who = count(picture.live, "worker takes", "workers take") + " compiles"
    if not picture.is_operator:
        return f"{who}, and {'there is room' if picture.has_room else 'every place is busy'}."
    serving = picture.serving
    capacity = sum(w.capacity for w in serving)
    busy = sum(min(w.running, w.capacity) for w in serving)
    waiting = count(sum(w.queued for w in serving), "compile waits", "compiles wait")
    return f"{who}; {busy:,} of {count(capacity, 'place is', 'places are')} busy, and {waiting}."


def farm_footer(picture: FarmPicture) -> str:
    """Return the foot of a page about a farm."""
    asked = time.strftime("%H:%M:%S", time.localtime(picture.at))
    view = "an operator's view" if picture.is_operator else f"what members of {picture.tenant} see"
    return footer(f"Asked at {asked}, this machine's time; {view}")


def _answers(picture: FarmPicture) -> str:
    said = len(picture.statuses)
    return text(f"{said} of {count(len(picture.answers), 'scheduler', 'schedulers')} answered.")


def _of_all(picture: FarmPicture, samples: Sequence[LoadSample]) -> list[Figure]:
    serving = picture.serving
    capacity = sum(w.capacity for w in serving)
    running = sum(min(w.running, w.capacity) for w in serving)
    queued = sum(w.queued for w in serving)
    return [
        Figure(
            "Workers that take compiles",
            f"{picture.live:,}",
            f"of {len(picture.workers):,}",
            f"{picture.draining} draining, {picture.stale} silent",
            spark(samples, lambda load: load.live, "hit"),
        ),
        Figure(
            "Places busy",
            f"{running:,}",
            f"of {capacity:,}",
            _peak(samples, lambda load: load.running, running) or f"{capacity - running:,} free",
            spark(samples, lambda load: load.running, "farm"),
        ),
        Figure(
            "Compiles that wait",
            f"{queued:,}",
            "",
            _peak(samples, lambda load: load.queued, queued) or "at the workers, for a place",
            spark(samples, lambda load: load.queued, "fallback"),
        ),
        _refused_figure(picture),
        Figure(
            "Daemons",
            f"{sum(t.daemons for t in picture.tenants):,}",
            "",
            f"watch routes, of {count(len(picture.tenants), 'tenant', 'tenants')}",
        ),
        _schedulers_figure(picture),
    ]


def _peak(samples: Sequence[LoadSample], value: Value, now: int) -> str:
    """Return the most of the last hour. What is now may be newer than the last sample."""
    most = max((value(s.load) for s in samples), default=0)
    return f"peak {max(most, now):,} in this hour" if samples else ""


def _of_member(picture: FarmPicture) -> list[Figure]:
    own = next((t for t in picture.tenants if t.tenant == picture.tenant), None)
    own = own or TenantStatus(tenant=picture.tenant)
    room = ("yes", "a worker has a free place") if picture.has_room else ("no", "all are busy")
    return [
        Figure(
            "Workers that take compiles",
            f"{picture.live:,}",
            "",
            f"{picture.draining} draining, {picture.stale} silent",
        ),
        Figure("Room", room[0], "", room[1]),
        Figure("Daemons of your tenant", f"{own.daemons:,}", "", "watch routes"),
        Figure(
            "Places of your tenant",
            f"{own.granted:,}",
            f"of {own.wanted:,}",
            "granted of wanted, if a limit counts on the farm",
        ),
        _refused_figure(picture),
        _schedulers_figure(picture),
    ]


def _refused_figure(picture: FarmPicture) -> Figure:
    missed, every = refused(picture.tenants)
    note = f"{missed:,} of {every:,} requests, since the start"
    return Figure("Routes refused", percent(missed, every), "", note)


def _schedulers_figure(picture: FarmPicture) -> Figure:
    stores = sum(s.is_store_up for s in picture.statuses)
    said = len(picture.statuses)
    note = "all reach the control store" if stores == said else f"{stores} reach the control store"
    return Figure("Schedulers that answer", str(said), f"of {len(picture.answers)}", note)


def workers_panel(
    shown: Sequence[WorkerStatus], all_workers: int, root: str, right: str = ""
) -> str:
    """Return the table of workers. `all_workers` is how many there are, `right` is markup."""
    rows = "".join(worker_row(w, root) for w in shown)
    if not rows:
        return panel("Workers", '<p class="pad note">No worker is registered.</p>')
    content = table("Workers", WORKER_COLUMNS, rows, "wide")
    note = "a cell is a place for one compile"
    if len(shown) < all_workers:
        note += f"; {len(shown)} of {all_workers:,}"
    return panel("Workers", content, note, right)


def worker_row(worker: WorkerStatus, root: str) -> str:
    """Return the row of a worker."""
    name = f'<a href="{root}/worker/{text(worker.worker_id)}">{text(worker.worker_id)}</a>'
    busy = min(worker.running, worker.capacity)
    return (
        f"<tr><td><b>{name}</b></td><td>{state_of(worker)}</td>"
        f"<td>{text(worker.isolation)}</td><td>{cells(worker)}</td>"
        f'<td class="n">{busy:,}/{worker.capacity:,}</td><td class="n">{worker.queued:,}</td>'
        f'<td class="n">{worker.images:,}</td><td class="n">{worker.lost_guests:g}</td>'
        f"<td><code>{text(worker.endpoint)}</code></td></tr>"
    )


def tenants_panel(shown: Sequence[TenantStatus], root: str, right: str = "") -> str:
    """Return the table of tenants; `right` is markup."""
    most = max((t.wanted for t in shown), default=0)
    rows = "".join(
        f"<tr><td><b>{tenant_name(t.tenant, root)}</b></td>"
        f'<td class="n">{t.daemons:,}</td>'
        f'<td class="bar">{length_bar("farm", t.granted, most)}</td>'
        f'<td class="n">{t.granted:,}</td><td class="n">{t.wanted:,}</td>'
        f'<td class="n">{t.principals:,}</td></tr>'
        for t in shown
    )
    if not rows:
        return panel("Tenants", '<p class="pad note">No tenant has anything to show now.</p>')
    content = table("Tenants", TENANT_COLUMNS, rows, "some")
    return panel("Tenants", content, _LIMITS, right)


def _schedulers(picture: FarmPicture) -> str:
    rows = "".join(_scheduler_row(address, said) for address, said in picture.answers)
    columns = ("Scheduler", "State", "Version", "Control store")
    content = table("Schedulers", columns, rows, "some")
    return panel("Schedulers", content, "in the order of the login")


def _scheduler_row(address: str, said: FarmStatus | HpccError) -> str:
    name = f"<tr><td><code>{text(address)}</code></td>"
    if isinstance(said, HpccError):
        return f"{name}<td>{tag('failed', 'no answer')}</td><td>-</td><td>-</td></tr>"
    store = dot("answers") if said.is_store_up else tag("failed", "away")
    return f"{name}<td>{dot('answers')}</td><td>{text(said.version)}</td><td>{store}</td></tr>"
