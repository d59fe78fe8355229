"""The workers of a farm, and one of them, for operators."""

from __future__ import annotations

from typing import Final

from hpcc.cli.builds.parts import panel, table, text
from hpcc.cli.web.parts.farm_events import worker_events_panel
from hpcc.cli.web.parts.farm_panels import (
    age_words,
    farm_footer,
    has_load,
    sentence,
    wait_words,
    workers_panel,
)
from hpcc.cli.web.parts.farm_parts import (
    Figure,
    digest_or_text,
    dot,
    facts,
    figures,
    heading,
    state_of,
    tag,
    tenant_name,
    warnings,
)
from hpcc.cli.web.parts.shell import Page
from hpcc.core import NotFoundError
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.observe import FarmStatus, WorkerStatus
from hpcc.rpc.scheduler.recent_events import SeenEvents
from hpcc.rpc.scheduler.worker_detail import WorkerDetail

ROWS: Final = 100
_MEMBERS: Final = "This farm shows its workers to operators only."
_COMMANDS: Final = (
    ("hpcc scheduler drain-worker {}", "takes it out of work, with --reason TEXT"),
    ("hpcc scheduler drain-worker {} --undo", "puts it back"),
    ("systemctl status hpcc-worker", "on its machine: what it says of itself"),
    ("journalctl -u hpcc-worker", "on its machine: its log"),
)


def workers_page(picture: FarmPicture, number: int, root: str) -> Page:
    """Return the page of a hundred workers, in the order of their names."""
    head = heading("Workers", f"<b>{text(sentence(picture))}</b>")
    if not picture.is_operator:
        main = f'{head}<p class="panel pad note">{_MEMBERS}</p>{farm_footer(picture)}'
        return Page("Workers", main, is_live=True, section="Workers")
    found = picture.workers
    last = max(1, -(-len(found) // ROWS))
    number = min(max(number, 1), last)
    shown = found[(number - 1) * ROWS : number * ROWS]
    others = "".join(
        f'<a href="{root}/workers?page={page}">{word}</a>'
        for page, word in ((number - 1, "Before"), (number + 1, "After"))
        if 1 <= page <= last
    )
    pages = f'<nav class="pages" aria-label="More workers">{others}</nav>' if others else ""
    main = head + workers_panel(shown, len(found), root) + pages + farm_footer(picture)
    return Page("Workers", main, is_live=True, section="Workers")


def worker_of(picture: FarmPicture, name: str) -> WorkerStatus:
    """Return a worker of a picture.

    Raises:
        NotFoundError: there is none of this name, or it may not be seen.
    """
    worker = next((w for w in picture.workers if w.worker_id == name), None)
    if worker is None:
        raise NotFoundError("no worker of this name is registered, or it is not shown to you")
    return worker


def worker_page(
    picture: FarmPicture, worker: WorkerStatus, detail: WorkerDetail | None,
    events: SeenEvents | None, root: str,
) -> Page:  # fmt: skip
    """Return the page of one worker. `detail` is None where no scheduler shows it."""
    own = [w for w in picture.warnings if w.about == worker.worker_id]
    main = (
        heading(worker.worker_id, f'{state_of(worker)} · <a href="{root}/workers">all workers</a>')
        + warnings(own)
        + figures(_figures(worker))
        + f'<div class="grid two">{_facts(worker)}{_seen_by(picture, worker)}'
        + f"{_images(worker, detail)}{_places(detail, root)}</div>"
        + _events(picture, worker, events, root)
        + _commands(worker)
        + farm_footer(picture)
    )
    return Page(worker.worker_id, main, is_live=True, section="Workers")


def _figures(worker: WorkerStatus) -> list[Figure]:
    busy = min(worker.running, worker.capacity)
    free = worker.capacity - busy
    return [
        Figure("Places busy", f"{busy:,}", f"of {worker.capacity:,}", f"{free:,} free"),
        Figure("Compiles that wait", f"{worker.queued:,}", "", _waits(worker)),
        Figure(
            "Guests lost lately", f"{worker.lost_guests:g}", "", "each heartbeat forgets a tenth"
        ),
        Figure("Images", f"{worker.images:,}", "", "toolchain images that it offers"),
        Figure(
            "Lease", f"{worker.lease_seconds:.0f}", "s", "until it is dropped, unless it reports"
        ),
        Figure("Drain", *_drain(worker)),
    ]


def _waits(worker: WorkerStatus) -> str:
    if not worker.waits:
        return "here, for a place"
    return f"95 of 100 waited at most {wait_words(worker)}; {worker.waits:,} in ten minutes"


def _drain(worker: WorkerStatus) -> tuple[str, str, str]:
    if not worker.drain:
        return "no", "", "it takes compiles"
    if worker.drain == "draining" and worker.drain_seconds:
        return f"{worker.drain_seconds:.0f}", "s", "what runs may still take"
    return worker.drain, "", "it takes no compiles"


def _facts(worker: WorkerStatus) -> str:
    return facts(
        "What the scheduler knows",
        (
            ("Address", worker.endpoint),
            ("Version", worker.version),
            ("Load for each processor", f"{worker.load:.2f}" if has_load(worker) else ""),
            (
                "Store",
                f"{worker.store_bytes >> 20:,} of {worker.store_limit_bytes >> 20:,} MiB, of"
                " tenants that it has served"
                if worker.store_limit_bytes
                else "",
            ),
            ("Up for", age_words(worker.up_seconds) if worker.up_seconds else ""),
            ("Isolation of its guests", worker.isolation),
            ("Drained by", worker.drain_by),
            ("Because", worker.drain_reason),
        ),
    )


def _seen_by(picture: FarmPicture, worker: WorkerStatus) -> str:
    rows = ""
    for address, said in picture.answers:
        if not isinstance(said, FarmStatus):
            continue
        known = next((w for w in said.workers if w.worker_id == worker.worker_id), None)
        if known is None:
            rows += f"<tr><td><code>{text(address)}</code></td><td>unknown there</td>"
            rows += '<td class="n">-</td><td class="n">-</td></tr>'
            continue
        hears = dot("hears it") if known.is_heard else "knows of it"
        hears = tag("failed", "silent") if known.is_stale else hears
        rows += (
            f"<tr><td><code>{text(address)}</code></td><td>{hears}</td>"
            f'<td class="n">{known.running:,}</td><td class="n">{known.queued:,}</td></tr>'
        )
    columns = ("Scheduler", "State", "#Busy", "#Wait")
    note = "the figures above are those of a scheduler that hears it"
    return panel("Seen by", table("Seen by", columns, rows, "some"), note)


def _images(worker: WorkerStatus, detail: WorkerDetail | None) -> str:
    if detail is None:
        return panel("Images", '<p class="pad note">No scheduler shows them now.</p>')
    rows = "".join(
        f'<tr><td class="cut">{digest_or_text(image.digest)}</td>'
        f"<td>{text(', '.join(image.compilers)) or '-'}</td></tr>"
        for image in detail.images
    )
    note = "the compilers are those that the worker found in it"
    if len(detail.images) < worker.images:
        note += f"; {len(detail.images)} of {worker.images:,}"
    if not rows:
        return panel("Images", '<p class="pad note">It offers none.</p>')
    return panel("Images", table("Images", ("Image", "Compilers"), rows), note)


def _places(detail: WorkerDetail | None, root: str) -> str:
    rows = "".join(
        f"<tr><td><b>{tenant_name(p.tenant, root)}</b></td>"
        f'<td class="n">{p.held:,}</td><td class="n">{p.granted:,}</td>'
        f'<td class="n">{p.wanted:,}</td><td class="n">{p.principals:,}</td></tr>'
        for p in (detail.places if detail is not None else ())
    )
    if not rows:
        none = '<p class="pad note">No tenant with a farm-wide limit has a place here now.</p>'
        return panel("Places by tenant", none)
    columns = ("Tenant", "#Held", "#Granted", "#Wanted", "#People")
    return panel("Places by tenant", table("Places by tenant", columns, rows, "some"))


def _events(
    picture: FarmPicture, worker: WorkerStatus, events: SeenEvents | None, root: str
) -> str:
    if events is None:
        return ""
    drawn = worker_events_panel(events, picture.farm_at, root, worker.worker_id)
    return f'<div class="grid">{drawn}</div>'


def _commands(worker: WorkerStatus) -> str:
    rows = "".join(
        f"<dt><code>{text(command.format(worker.worker_id))}</code></dt><dd>{text(what)}</dd>"
        for command, what in _COMMANDS
    )
    return panel("Commands", f'<dl class="facts">{rows}</dl>', "these pages change nothing")
