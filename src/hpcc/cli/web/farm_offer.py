"""The builds of a farm that one of them can be compared with."""

from __future__ import annotations

from collections.abc import Iterable

from hpcc.cli.builds.farm_words import served_of
from hpcc.cli.web.compare_page import COMPARE, Offered, offer
from hpcc.cli.web.parts.shell import Page, footer
from hpcc.rpc.scheduler.builds import FarmBuild


def farm_offer_page(build: FarmBuild, every: Iterable[FarmBuild], where: str) -> Page:
    """Return the page: builds of the same tenant, those of the same person first.

    `where` is the address below which each build has its page.
    """
    own = build.last
    others = [
        one for one in every if one.build_id != build.build_id and one.last.tenant == own.tenant
    ]
    others.sort(key=lambda one: one.last.principal != own.principal)
    name, link = build.summary.build, f"{where}/{build.build_id}"
    main = offer(name, link, [_offered(f"{link}/{COMPARE}", one) for one in others])
    return Page(
        "Compare",
        main + footer("Counts and names are what the clients say."),
        is_live=True,
        section="Builds",
    )


def _offered(link: str, build: FarmBuild) -> Offered:
    s = build.summary
    return Offered(
        f"{link}/{build.build_id}", s.build, build.last.principal, s.ended_ms * 1000,
        (s.ended_ms - s.began_ms) * 1000, s.compiles, served_of(s),
    )  # fmt: skip
