"""Security events of the schedulers, for operators: what was refused, of whom, and why."""

from __future__ import annotations

import time
from typing import Final

from hpcc.cli.builds.parts import panel, quoted, table, text
from hpcc.rpc.scheduler.recent_events import SeenEvent, SeenEvents

_TITLE: Final = "Security events"
_COLUMNS: Final = ("When", "Event", "Tenant", "Caller", "What")
_MEANINGS: Final = (
    "`docs/spec/audit.md` has the meanings. The trails have all events, also those of workers: "
    "`hpcc audit list --events`."
)
_DAY_SECONDS: Final = 80_000.0


def events_panel(seen: SeenEvents, now: float, most: int, right: str = "") -> str:
    """Return the box of the newest events; `right` is markup."""
    silent = f"; {seen.silent} of the schedulers show none" if seen.silent else ""
    if not seen.since:
        return panel(_TITLE, '<p class="pad note">No scheduler shows events.</p>', "", right)
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.since))
    note = f"of schedulers since {since}, of each name the last ten{silent}"
    if not seen.events:
        none = '<p class="pad note">Nothing was refused, and nothing was found wrong.</p>'
        return panel(_TITLE, none, note, right)
    rows = "".join(_row(event, now) for event in seen.events[:most])
    more = len(seen.events) - most
    rest = f'<p class="pad note">{more} more</p>' if more > 0 and not right else ""
    said = f'<p class="pad note">{quoted(_MEANINGS)}</p>' if not right else ""
    return panel(_TITLE, table(_TITLE, _COLUMNS, rows, "wide") + rest + said, note, right)


def _row(event: SeenEvent, now: float) -> str:
    form = "%H:%M:%S" if abs(now - event.at) < _DAY_SECONDS else "%d %b %H:%M"
    what = ", ".join(f"{name} {value}" for name, value in event.fields if value)
    return (
        f"<tr><td>{time.strftime(form, time.localtime(event.at))}</td>"
        f"<td><b>{text(event.name)}</b></td><td>{text(event.tenant) or '-'}</td>"
        f"<td>{text(event.peer) or '-'}</td><td>{text(what) or '-'}</td></tr>"
    )
