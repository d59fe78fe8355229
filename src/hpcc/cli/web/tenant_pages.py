"""The tenants of a farm, and one of them. A member's picture holds its own tenant only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcc.cli.builds.parts import panel, quoted, text
from hpcc.cli.builds.timeline import length_bar
from hpcc.cli.builds.words import percent
from hpcc.cli.web.parts.farm_panels import farm_footer, sentence, tenants_panel
from hpcc.cli.web.parts.farm_parts import Figure, count, figures, heading
from hpcc.cli.web.parts.farm_routes import refused, routes_panel
from hpcc.cli.web.parts.shell import Page
from hpcc.cli.web.parts.sums import Ends
from hpcc.core import NotFoundError
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.observe import TenantStatus

_HOUR: Final = '<span class="more note">compiles of the last hour</span>'
_LIMITS: Final = "Granted and wanted are counted for tenants with `farm_execs` or `farm_weight`."


def tenants_page(picture: FarmPicture, root: str, ends: Mapping[str, Ends]) -> Page:
    """Return the page of all tenants that may be seen; `ends` are of the last hour."""
    many = count(len(picture.tenants), "tenant has", "tenants have")
    sub = f"<b>{text(many)} something to show.</b> {text(sentence(picture))}"
    main = (
        heading("Tenants", sub)
        + tenants_panel(picture.tenants, root, _HOUR, ends)
        + farm_footer(picture)
    )
    return Page("Tenants", main, is_live=True, section="Tenants")


def tenant_page(picture: FarmPicture, name: str, root: str) -> Page:
    """Return the page of one tenant.

    Raises:
        NotFoundError: there is none of this name, or it may not be seen.
    """
    tenant = next((t for t in picture.tenants if t.tenant == name), None)
    if tenant is None:
        raise NotFoundError("no tenant of this name has anything to show to you")
    waiting = max(tenant.wanted - tenant.granted, 0)
    missed, every = refused((tenant,))
    sub = f'<b>{text(sentence(picture))}</b> <a href="{root}/tenants">All tenants</a>'
    main = (
        heading(tenant.tenant, sub)
        + figures(
            [
                Figure("Daemons", f"{tenant.daemons:,}", "", "watch routes at the schedulers"),
                Figure("Places granted", f"{tenant.granted:,}", f"of {tenant.wanted:,} wanted"),
                Figure("Wanted beyond that", f"{waiting:,}", "", "compiles at once"),
                Figure("People", f"{tenant.principals:,}", "", "have something to compile"),
                Figure("Routes", f"{every:,}", "", "asked for since the schedulers started"),
                Figure("Routes refused", percent(missed, every), "", f"{missed:,} of them"),
            ]
        )
        + f'<div class="grid two">{routes_panel((tenant,))}{_places(tenant)}</div>'
        + farm_footer(picture)
    )
    return Page(tenant.tenant, main, is_live=True, section="Tenants")


def _places(tenant: TenantStatus) -> str:
    bar = length_bar("farm", tenant.granted, max(tenant.wanted, tenant.granted))
    what = (
        f"<p>{tenant.granted:,} of {tenant.wanted:,} wanted places are granted.</p>{bar}"
        if tenant.wanted
        else "<p>Nobody of this tenant waits for a place that a farm-wide limit counts.</p>"
    )
    content = f'<div class="pad places">{what}<p class="note">{quoted(_LIMITS)}</p></div>'
    return panel("Places", content)
