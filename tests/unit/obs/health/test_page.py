"""What probes and people read at `/livez` and `/readyz`."""

from __future__ import annotations

import pytest

from hpcc.obs.health.health import Health
from hpcc.obs.health.page import live_page, ready_page


def health() -> Health:
    found = Health()
    found.add("disk", lambda: "")
    found.add("control-store", lambda: "no answer", is_fault=False)
    found.add("tenants", lambda: "line 3", is_fault=False)
    found.serving()
    return found


async def test_each_failed_condition_has_one_line_and_any_of_them_counts() -> None:
    conditions = health().conditions()
    assert ready_page(conditions, "") == (503, "control-store: no answer\ntenants: line 3\n")
    assert ready_page(conditions, "exclude=tenants") == (503, "control-store: no answer\n")
    assert ready_page(conditions, "exclude=tenants&exclude=control-store") == (200, "ready\n")
    assert ready_page(conditions, "exclude=disk&exclude=service")[0] == 503
    shown = ready_page(conditions, "verbose&exclude=tenants")
    assert shown == (
        503,
        "service: ok\ndisk: ok\ncontrol-store: no answer\ntenants: line 3 (excluded)\n",
    )


@pytest.mark.parametrize("query", ["&" * 5000, "a=" * 5000, "%ff%00", "exclude", "=", "\xff"])
async def test_an_odd_query_changes_nothing(query: str) -> None:
    status, text = ready_page(health().conditions(), query)
    assert status == 503
    assert len(text) < 200


def test_a_loop_that_is_silent_is_not_alive_and_not_ready() -> None:
    assert live_page(0.5) == (200, "live\n")
    assert live_page(10.0)[0] == 200
    assert live_page(10.1) == (503, "event-loop: it has not run for 10 s\n")
    assert ready_page(None, "") == (503, "event-loop: it did not answer in time\n")
