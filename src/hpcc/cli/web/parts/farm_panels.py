"""Parts of several pages about a farm: its health in a sentence, workers, tenants, schedulers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.cli.builds.parts import panel, table, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import duration, percent
from hpcc.cli.web.parts.farm_parts import cells, count, dot, state_of, tag, tenant_name
from hpcc.cli.web.parts.shell import footer
from hpcc.cli.web.parts.sums import Ends
from hpcc.core import HpccError, Isolation
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.observe import FarmStatus, TenantStatus, WorkerStatus

WORKER_COLUMNS: Final = (
    "Worker", "State", "Isolation", "Places", "#Busy", "#Wait", "#Wait p95", "Load", "", "Store",
    "", "Version", "#Up", "#Heard",
)  # fmt: skip
TENANT_COLUMNS: Final = (
    "Tenant", "", "#Places", "#Compiles", "#Cache", "#Instead",
)  # fmt: skip
_WINDOWS: Final = frozenset({Isolation.HYPERV.value, Isolation.PROCESS_WINDOWS.value})
_LIMITS: Final = "places granted of wanted"


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
        f'<td class="n">{wait_words(worker)}</td>'
        f"{_shares(worker)}<td>{text(worker.version) or '-'}</td>"
        f'<td class="n">{age_words(worker.up_seconds)}</td>'
        f'<td class="n">{age_words(worker.heard_seconds)}</td></tr>'
    )


def has_load(worker: WorkerStatus) -> bool:
    """Return whether a worker says its load; Windows has none, and 0 there is no claim."""
    return bool(worker.version) and (worker.load > 0 or worker.isolation not in _WINDOWS)


def _shares(worker: WorkerStatus) -> str:
    """Return load and store as bars with their shares; `-` where the worker does not say them."""
    load, size, limit = round(100 * worker.load), worker.store_bytes, worker.store_limit_bytes
    cells = ""
    for style, part, whole, is_known in (
        ("farm", min(load, 100), 100, has_load(worker)),
        ("rest", min(size, limit), limit, bool(limit)),
    ):  # fmt: skip
        shown = f"{100 * part // whole} %" if is_known else "-"
        if style == "farm" and is_known:
            shown = f"{load:,} %"  # more wants to run than there are processors
        bar = length_bar(style, part, whole) if is_known else ""
        cells += f'<td class="gauge">{bar}</td><td class="n">{shown}</td>'
    return cells


def wait_words(worker: WorkerStatus) -> str:
    """Return what 95 of 100 waits for a guest did not exceed lately; `-` if none ended."""
    return duration(round(worker.wait_p95_seconds * 1_000_000)) if worker.waits else "-"


def age_words(seconds: float) -> str:
    """Return a time in one unit; `-` for none."""
    if not seconds:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def tenants_panel(
    shown: Sequence[TenantStatus],
    root: str,
    right: str = "",
    ends: Mapping[str, Ends] | None = None,
) -> str:
    """Return the table of tenants; `right` is markup.

    `ends` are what became of their compiles, where the builds are known.
    """
    most = max((t.wanted for t in shown), default=0)
    rows = "".join(
        f"<tr><td><b>{tenant_name(t.tenant, root)}</b></td>"
        f'<td class="bar">{length_bar("farm", t.granted, most)}</td>'
        f'<td class="n">{t.granted:,}/{t.wanted:,}</td>'
        f"{_ended((ends or {}).get(t.tenant, Ends()))}</tr>"
        for t in shown
    )
    if not rows:
        return panel("Tenants", '<p class="pad note">No tenant has anything to show now.</p>')
    content = table("Tenants", TENANT_COLUMNS, rows, "some")
    return panel("Tenants", content, _LIMITS, right)


def _ended(ends: Ends) -> str:
    every = round(ends.compiles)
    if not every:
        return '<td class="n">-</td>' * 3
    return (
        f'<td class="n">{every:,}</td><td class="n">{percent(round(ends.cache), every)}</td>'
        f'<td class="n">{percent(round(ends.instead), every)}</td>'
    )


def schedulers_panel(picture: FarmPicture) -> str:
    """Return the table of schedulers."""
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
