"""What became of requests for routes: a compile without a route runs on its own machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from hpcc.cli.builds.parts import panel, quoted, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import percent
from hpcc.obs.metrics.registry import MAX_TENANTS
from hpcc.rpc.scheduler.observe import TenantStatus

OK: Final = "ok"
_MOST: Final = 8
REMEDIES: Final[Mapping[str, str]] = {
    "no-worker": "No live worker has the image at the isolation. Prepare it on one.",
    "image": "The tenants table does not allow the image. Somebody changed the build or the table.",
}
"""What docs/runbook.md says at HpccRoutesRefused."""
_OTHER: Final = "`docs/reasons.md` has the word, the scheduler's journal has more."
# What is here is what metrics show.
_NONE: Final = (
    f"No request for a route is counted. A scheduler counts {MAX_TENANTS} tenants by name: the "
    "first ones, and those in `admin_tenants` of its config file."
)
_SINCE: Final = "since the schedulers started, by reason"


def refused(tenants: Iterable[TenantStatus]) -> tuple[int, int]:
    """Return how many requests for routes had none, and how many there were."""
    counts = _counts(tenants)
    return counts.total() - counts[OK], counts.total()


def routes_panel(tenants: Iterable[TenantStatus]) -> str:
    """Return the box of requests that had no route, with what to do."""
    counts = _counts(tenants)
    every = counts.total()
    missed = [(word, n) for word, n in counts.most_common() if word != OK]
    title = "Routes refused"
    if not every:
        return panel(title, f'<p class="pad note">{quoted(_NONE)}</p>', _SINCE)
    if not missed:
        fine = f'<p class="pad note">Each of {every:,} requests for a route had one.</p>'
        return panel(title, fine, _SINCE)
    rows = "".join(_row(word, n, every) for word, n in missed[:_MOST])
    if len(missed) > _MOST:
        rest = sum(n for _, n in missed[_MOST:])
        rows += f'<li class="note">{len(missed) - _MOST} more reasons, {rest:,} requests</li>'
    said = f"{sum(n for _, n in missed):,} of {every:,} requests, {_SINCE}"
    return panel(title, f'<ul class="causes">{rows}</ul>', said)


def _row(word: str, number: int, every: int) -> str:
    return (
        f'<li><b>{text(word.removeprefix("_"))}</b><span class="n">{number:,}</span>'
        f'<span class="n share">{percent(number, every)}</span>'
        f'<span class="note">{quoted(REMEDIES.get(word, _OTHER))}</span>'
        f"{length_bar('fallback', number, every)}</li>"
    )


def _counts(tenants: Iterable[TenantStatus]) -> Counter[str]:
    found = Counter[str]()
    for tenant in tenants:
        for one in tenant.routes:
            found[one.result] += one.count
    return found
