"""Which time and which tenant a page shows: the form, and what an address says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.cli.builds.parts import text
from hpcc.cli.web.overview.outcome_chart import span_words
from hpcc.cli.web.parts.sums import HOURS, Choice, tenants_of
from hpcc.rpc.scheduler.builds import KeptBuild

_MAX_TENANT_CHARS: Final = 63
_MAX_OFFERED: Final = 200


def choice_of(fields: Mapping[str, str], reports: Sequence[KeptBuild]) -> Choice:
    """Return what an address asks for; what nothing is known of is the whole farm."""
    hours = next((h for h in HOURS if str(h) == fields.get("hours")), HOURS[0])
    tenant = fields.get("tenant", "")[:_MAX_TENANT_CHARS]
    return Choice(hours, tenant if tenant in tenants_of(reports) else "")


def choice_form(
    address: str, choice: Choice, reports: Sequence[KeptBuild], *, is_operator: bool
) -> str:
    """Return the form. A member has one tenant, and chooses none."""
    hours = "".join(
        f'<option value="{h}"{_chosen(h == choice.hours)}>{span_words(h)}</option>' for h in HOURS
    )
    fields = f'<label><span class="sr">Time</span><select name="hours">{hours}</select></label>'
    if is_operator:
        names = tenants_of(reports)[:_MAX_OFFERED]
        tenants = "".join(
            f'<option value="{text(name)}"{_chosen(name == choice.tenant)}>{text(name)}</option>'
            for name in names
        )
        fields += (
            '<label><span class="sr">Tenant</span><select name="tenant">'
            f'<option value="">all tenants</option>{tenants}</select></label>'
        )
    form = f'<form class="choice" method="get" action="{address}">'
    return f"{form}{fields}<button>Show</button></form>"


def _chosen(is_so: bool) -> str:  # noqa: FBT001 - the one fact that it is about
    return " selected" if is_so else ""
