"""One result of the farm: what is proved of it, what made it, and how to check that elsewhere.

The page is made of what a worker gave to this user's own login. Every text of it is the worker's,
or the command's, so all of it is escaped; what a check could not see is shown as not seen.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from hpcc.cli.base.farm_object import SIGNATURE, CheckState, FarmObject, commands_of
from hpcc.cli.builds.parts import panel, table, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import duration
from hpcc.cli.web.parts.farm_parts import digest_or_text, facts, heading, tag
from hpcc.cli.web.parts.shell import Page, footer

ADDRESS: Final = "objects"
MAX_ACTION_CHARS: Final = 100
_MAX_OUTPUTS: Final = 50
_MAX_ARGV_CHARS: Final = 4_000
_TAGS: Final = {
    CheckState.HOLDS: ("hit", "holds"), CheckState.FAILS: ("failed", "fails"),
    CheckState.UNKNOWN: ("rest", "not seen"),
}  # fmt: skip
# Where, what, and the colour; between each two moments that the worker noted.
_PHASES: Final = (
    ("worker", "waited for a guest", "wait"), ("guest", "inputs, compiler, outputs", "farm"),
    ("worker", "audit row and signature", "hit"),
)  # fmt: skip
_MOST_SECONDS: Final = 1e9
_HOW: Final = (
    "An object is found by its action, which the farm's cache has it under: `HASH/SIZE`, as an "
    "audit row and the page of a compile of this machine have it. You see what a compile of yours "
    "could get. Who looks gets the result, so the worker's trail has a row of it."
)
_UNSEEN: Final = (
    "Not seen from here: whether the row is in an unbroken chain, its anchors, the network of the "
    "guest. The commands show them, at the worker that made it."
)


def object_form(root: str, action: str = "", error: str = "") -> Page:
    """Return the page that asks for an action. `error` says what was wrong with the last one."""
    warning = f'<p class="panel warn">{text(error)}</p>' if error else ""
    main = (
        heading("Evidence", "What made an object, and what is proved of it")
        + _form(root, action)
        + warning
        + panel("How", f'<p class="pad note">{_quoted(_HOW)}</p>')
        + footer("This page asks nobody.")
    )
    return Page("Evidence", main, section="Evidence")


def _quoted(words: str) -> str:
    before, _, rest = text(words).partition("`")
    code, _, after = rest.partition("`")
    return f"{before}<code>{code}</code>{after}"


def _form(root: str, action: str) -> str:
    return (
        f'<form class="panel filter" method="get" action="{root}/{ADDRESS}"><label>Action '
        f'<input name="action" value="{text(action)}" maxlength="{MAX_ACTION_CHARS}" size="74">'
        "</label><button>Look</button></form>"
    )


def object_page(found: FarmObject, root: str, at: float) -> Page:
    """Return the page of one object, which was looked at `at` seconds since the epoch."""
    record = found.record
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.completed_at))
    name = record.outputs[0].path if record.outputs else "an action without outputs"
    sub = (
        f"made {made} in guest <code>{text(record.guest_id)}</code> of <b>{text(record.worker)}</b>"
        f" for {text(found.tenant)} · class {text(found.sharing)} · "
        f'<a href="{root}/{ADDRESS}">another one</a>'
    )
    main = (
        heading(name, sub, _verdict(found))
        + f'<div class="grid two">{_checks(found)}<div class="stack">{_times(found)}'
        + f"{_made_of(found)}</div></div>"
        + f'<div class="grid two"><div class="stack">{_outputs(found)}{_voters(found)}</div>'
        + f"{_commands(found)}</div>"
        + footer(f"Looked at {time.strftime('%H:%M:%S', time.localtime(at))}, this machine's time")
    )
    return Page(name, main, section="Evidence")


def _verdict(found: FarmObject) -> str:
    states = {check.name: check.state for check in found.checks}
    seen = [state for state in states.values() if state is not CheckState.UNKNOWN]
    said = f"{seen.count(CheckState.HOLDS)} of {len(seen)} that are seen hold"
    if found.is_good:
        return tag("hit", said)
    if states.get(SIGNATURE, CheckState.UNKNOWN) is CheckState.UNKNOWN:
        said += "; the signature, which covers them, is not seen"
    return tag("failed", said)


def _checks(found: FarmObject) -> str:
    rows = "".join(
        f"<tr><td>{tag(*_TAGS[check.state])}</td><td><b>{text(check.name)}</b></td>"
        f'<td class="why cut">{text(check.text)}<span class="note">{_detail(check.detail)}</span>'
        "</td></tr>"
        for check in found.checks
    )
    content = table("What is proved", ("Check", "Of", "What was looked at"), rows)
    return panel("What is proved", content, f"checked now, as worker {found.asked} gives it")


def _detail(words: str) -> str:
    """Return what was looked at; a word before a digest stays as it is."""
    before, _, last = words.rpartition(" ")
    shown = digest_or_text(last)
    if shown.startswith("<code"):
        return f"{text(before)} {shown}" if before else shown
    return f"<code>{text(words)}</code>"


def _made_of(found: FarmObject) -> str:
    record, spec, command = found.record, found.spec, found.command
    argv = shlex.join(command.argv) if command is not None else ""
    if len(argv) > _MAX_ARGV_CHARS:
        argv = f"{argv[:_MAX_ARGV_CHARS]} … and {len(argv) - _MAX_ARGV_CHARS:,} characters more"
    gone = "not stored any more at the worker" if command is None else ""
    return facts(
        "Made of",
        (
            ("Action", str(found.action)),
            ("Command", argv or gone),
            ("Directory", f"/src/{command.cwd}" if command is not None else ""),
            ("Variables", ", ".join(name for name, _ in command.env) if command else ""),
            ("Input tree", str(spec.input_root) if spec is not None else ""),
            ("Versions in the key", spec.salt.decode("utf-8", "replace") if spec else ""),
            ("Image", record.image),
            ("Kernel", record.kernel_digest),
            ("Agent", record.agent_digest),
            ("Lineage", record.lineage_digest),
            ("Exit code", str(record.exit_code)),
        ),
    )


def _times(found: FarmObject) -> str:
    record, signed = found.record, found.record.signature
    moments = [record.queued_at, record.started_at, record.completed_at]
    if signed is not None:
        moments.append(signed.signed_at_ms / 1000)
    rows = "".join(
        _phase(where, what, began - moments[0], max(ended - began, 0.0), moments)
        for (where, what, _), (began, ended) in zip(_PHASES, pairwise(moments), strict=False)
    )
    content = table("One compile", ("Where", "What", "", "#Took"), rows, "parts")
    note = "as the worker says; logarithmic, so that the small parts can be seen"
    return panel("One compile", content, note)


def _phase(where: str, what: str, began: float, took: float, moments: Sequence[float]) -> str:
    whole = _log(max(max(moments) - moments[0], 0.0))
    first, last = _log(max(began, 0.0)), _log(max(began, 0.0) + took)
    style = next(style for _, name, style in _PHASES if name == what)
    bar = length_bar(style, last - first, max(whole, 1), first)
    return (
        f'<tr><td>{where}</td><td>{what}</td><td class="bar">{bar}</td>'
        f'<td class="n">{duration(round(min(took, _MOST_SECONDS) * 1e6))}</td></tr>'
    )


def _log(seconds: float) -> int:
    """Return a place on a logarithmic scale, in thousandths of a decade from a millisecond on."""
    return round(1000 * math.log10(1 + min(seconds, _MOST_SECONDS) * 1000))


def _outputs(found: FarmObject) -> str:
    outputs = found.record.outputs
    rows = "".join(
        f'<tr><td class="file"><code>{text(o.path)}</code></td>'
        f'<td class="cut">{digest_or_text(o.digest.hash)}</td>'
        f'<td class="n">{o.digest.size_bytes:,}</td></tr>'
        for o in outputs[:_MAX_OUTPUTS]
    )
    note = f"{_MAX_OUTPUTS} of {len(outputs)}" if len(outputs) > _MAX_OUTPUTS else ""
    columns = ("Output", "SHA-256", "#Bytes")
    return panel("Outputs", table("Outputs", columns, rows, "wide"), note)


def _voters(found: FarmObject) -> str:
    evidence = found.record.evidence
    if evidence is None or not evidence.claims:
        what = "No agreement is needed for it, or nobody else made it."
        return panel("Who agrees", f'<p class="pad note">{what}</p>')
    rows = "".join(
        f"<tr><td><code>{text(c.guest_id)}</code></td><td>{text(c.isolation.value)}</td>"
        f'<td class="n">{c.execs_before:,}</td><td><code>{text(c.row)}</code></td>'
        f"<td><code>{text(c.key_id)}</code></td></tr>"
        for c in evidence.claims
    )
    columns = ("Guest", "Isolation", "#Executed before", "Audit row", "Signed by key")
    return panel("Who agrees", table("Who agrees", columns, rows, "wide"), "votes of others")


def _commands(found: FarmObject) -> str:
    rows = "".join(
        f"<dt><code>{text(command)}</code></dt><dd>{text(what)}</dd>"
        for command, what in commands_of(found)
    )
    worker = found.record.worker
    return panel(
        "Check it yourself",
        f'<dl class="facts cmds">{rows}</dl><p class="pad note">{text(_UNSEEN)}</p>',
        f"on the machine of worker {worker}; needs no trust in this page",
    )
