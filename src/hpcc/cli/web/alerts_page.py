"""What is wrong with a farm, as far as its schedulers see it, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcc.cli.builds.parts import panel, quoted, table, text
from hpcc.cli.web.parts.farm_events import events_panel, worker_events_panel
from hpcc.cli.web.parts.farm_panels import farm_footer, sentence
from hpcc.cli.web.parts.farm_parts import heading, health_tag, tag
from hpcc.cli.web.parts.shell import Page
from hpcc.rpc.scheduler.farm_picture import FarmPicture, FarmWarning
from hpcc.rpc.scheduler.recent_events import MAX_EVENTS, SeenEvents

# The entry of docs/runbook.md for a warning: the alert that Prometheus raises for the same.
RUNBOOK: Final[Mapping[str, str]] = {
    "scheduler-silent": "HpccNoScheduler",
    "control-store": "HpccControlStoreAway",
    "several-versions": "HpccVersionSkew",
    "no-worker": "HpccNoWorker",
    "no-room": "HpccFarmFull",
    "worker-stale": "HpccWorkerApart",
}
# Nothing is broken: an operator wanted it, or it is only full.
_MILD: Final = frozenset({"worker-drained", "no-room", "several-versions"})
_COLUMNS: Final = ("Warning", "What is wrong", "What mends it", "Runbook")
_BEYOND: Final = (
    "Lost guests, waiting times, fallbacks, the audit trail and certificates are watched by "
    "Prometheus, with the rules of `deploy/monitoring`. This page warns of none of them."
)


def alerts_page(picture: FarmPicture, events: SeenEvents | None, root: str) -> Page:
    """Return the page; a member's has what members see, without events."""
    rows = "".join(map(_row, picture.warnings))
    content = (
        table("Warnings", _COLUMNS, rows, "wide") if rows
        else '<p class="pad note">Nothing is wrong that a scheduler sees.</p>'
    )  # fmt: skip
    main = (
        heading("Alerts", f"<b>{text(sentence(picture))}</b>", health_tag(picture))
        + panel("Now", content)
        + (_events(picture, events, root) if events is not None else "")
        + panel("Not seen here", f'<p class="pad note">{quoted(_BEYOND)}</p>')
        + farm_footer(picture)
    )
    return Page("Alerts", main, is_live=True, section="Alerts")


def _events(picture: FarmPicture, events: SeenEvents, root: str) -> str:
    now = picture.farm_at
    return events_panel(events, now, MAX_EVENTS) + worker_events_panel(events, now, root)


def _row(warning: FarmWarning) -> str:
    style = "fallback" if warning.code in _MILD else "failed"
    entry = RUNBOOK.get(warning.code, "")
    return (
        f"<tr><td>{tag(style, warning.code)}</td><td>{text(warning.text)}</td>"
        f"<td>{quoted(warning.remedy)}</td><td><code>{text(entry)}</code></td></tr>"
    )
