"""Security events of schedulers and workers, for operators: what was refused, of whom, and why.

An event of a worker is what that worker says. Its certificate proves which worker it is, so a page
shows a worker's events under its name, apart from those of schedulers, and one that says much takes
only its own room.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from hpcc.cli.builds.parts import panel, quoted, table, text
from hpcc.rpc.scheduler.recent_events import SeenEvent, SeenEvents, fair

_TITLE: Final = "Security events"
_OF_WORKERS: Final = "Security events of workers"
_OF_ONE: Final = "What it says of its security events"
_COLUMNS: Final = ("When", "Event", "Tenant", "Caller", "What")
_MEANINGS: Final = (
    "`docs/spec/audit.md` has the meanings. The trails have all events: `hpcc audit list --events`."
)
_CLAIMS: Final = (
    "A worker's certificate proves which worker says it; names, times and all else are its claim."
)
_DAY_SECONDS: Final = 80_000.0


def events_panel(seen: SeenEvents, now: float, most: int) -> str:
    """Return the box of the schedulers' newest events."""
    if not seen.since:
        return panel(_TITLE, '<p class="pad note">No scheduler shows events.</p>')
    note = f"of schedulers since {_since(seen)}, of each name the last ten{_silent(seen)}"
    if not seen.events:
        none = '<p class="pad note">Nothing was refused, and nothing was found wrong.</p>'
        return panel(_TITLE, none, note)
    rows = "".join(_row(event, now) for event in seen.events[:most])
    more = len(seen.events) - most
    rest = f'<p class="pad note">{more} more</p>' if more > 0 else ""
    said = f'<p class="pad note">{quoted(_MEANINGS)}</p>'
    return panel(_TITLE, table(_TITLE, _COLUMNS, rows, "wide") + rest + said, note)


def worker_events_panel(seen: SeenEvents, now: float, root: str, only: str = "") -> str:
    """Return the box of the events that workers tell; `only` is one worker's name."""
    found = [e for e in seen.of_workers if only in {"", e.worker}]
    title = _OF_ONE if only else _OF_WORKERS
    if not found:
        none = '<p class="pad note">No scheduler has heard of one.</p>'
        return panel(title, none, _silent(seen).removeprefix("; "))
    note = f"of each name the last four of a worker{_silent(seen)}"
    rows = "".join(_row(event, now, "" if only else _worker(event, root)) for event in found)
    columns = _COLUMNS if only else (*_COLUMNS[:1], "Worker", *_COLUMNS[1:])
    said = f'<p class="pad note">{_CLAIMS}</p>'
    return panel(title, table(title, columns, rows, "wide") + said, note)


def newest_events_panel(seen: SeenEvents, now: float, most: int, root: str, right: str) -> str:
    """Return the box of the newest events of both; half of it is for workers. `right` is markup."""
    if not seen.since:
        return panel(_TITLE, '<p class="pad note">No scheduler shows events.</p>', "", right)
    note = f"of schedulers since {_since(seen)}; what workers say{_silent(seen)}"
    # Neither side hides the other: any client causes some events, and a worker may invent them.
    of_workers = fair(seen.of_workers, max(most // 2, most - len(seen.events)))
    shown = (*seen.events[: most - len(of_workers)], *of_workers)
    if not shown:
        none = '<p class="pad note">Nothing was refused, and nothing was found wrong.</p>'
        return panel(_TITLE, none, note, right)
    newest: Sequence[SeenEvent] = sorted(shown, key=lambda event: event.at, reverse=True)
    rows = "".join(_row(event, now, _worker(event, root)) for event in newest)
    columns = (*_COLUMNS[:1], "Of", *_COLUMNS[1:])
    return panel(_TITLE, table(_TITLE, columns, rows, "wide"), note, right)


def _since(seen: SeenEvents) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.since))


def _silent(seen: SeenEvents) -> str:
    return f"; {seen.silent} of the schedulers show none" if seen.silent else ""


def _worker(event: SeenEvent, root: str) -> str:
    """Return whose trail has an event, as markup: only a name that a worker can have is a link."""
    if not event.worker:
        return "scheduler"
    name = text(event.worker)
    is_plain = all(c.isalnum() or c in ".-" for c in event.worker) and event.worker.isascii()
    return f'<a href="{root}/worker/{name}">{name}</a>' if is_plain else name


def _row(event: SeenEvent, now: float, whose: str = "") -> str:
    form = "%H:%M:%S" if abs(now - event.at) < _DAY_SECONDS else "%d %b %H:%M"
    what = ", ".join(f"{name} {value}" for name, value in event.fields if value)
    of = f"<td>{whose}</td>" if whose else ""
    return (
        f'<tr><td class="word">{time.strftime(form, time.localtime(event.at))}</td>{of}'
        f"<td><b>{text(event.name)}</b></td><td>{text(event.tenant) or '-'}</td>"
        f"<td>{text(event.peer) or '-'}</td><td>{text(what) or '-'}</td></tr>"
    )
