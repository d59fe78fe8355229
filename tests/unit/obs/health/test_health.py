"""A service's conditions: which ones stop it, and how a person reads them."""

from __future__ import annotations

import asyncio

from hpcc.obs.health.health import Health


def names(health: Health, *besides: str) -> list[str]:
    return [f.name for f in health.conditions().failed(besides)]


async def test_it_serves_only_between_its_start_and_its_end() -> None:
    health = Health()
    assert not health.conditions().is_serving
    health.starting("booting the first guest")
    assert [f.reason for f in health.conditions().failed()] == [
        "it starts: booting the first guest"
    ]
    assert health.line() == "starts: booting the first guest"
    health.serving()
    assert health.conditions().is_serving
    assert names(health) == []
    health.stopping()
    assert not health.conditions().is_serving
    assert names(health) == ["service"]
    assert health.line() == "ends: running work finishes"


async def test_a_fault_stops_calls_and_a_degradation_does_not() -> None:
    health, store, disk = Health(), "", ""
    health.add("disk", lambda: disk)
    health.add("control-store", lambda: store, is_fault=False)
    health.summary = lambda: "3 workers live"
    health.serving()
    assert health.line() == "3 workers live"
    store = "no route to host"
    assert health.conditions().is_serving
    assert names(health) == ["control-store"]
    assert names(health, "control-store") == []
    assert health.line() == "control-store: no route to host; 3 workers live"
    disk = "/var: 0 MiB are free"
    assert not health.conditions().is_serving
    expected = (
        "not ready; disk: /var: 0 MiB are free; control-store: no route to host; 3 workers live"
    )
    assert health.line() == expected
    store = disk = ""
    assert names(health) == []


async def test_a_reason_is_one_short_line_whatever_it_holds() -> None:
    health = Health()
    health.add("peer", lambda: "a\nREADY=1\x1b[31m" + "x" * 5000)
    health.serving()
    (failed,) = health.conditions().failed()
    assert failed.reason.startswith(r"a\nREADY=1\x1b[31m")
    assert len(failed.reason) == 300
    assert "\n" not in health.line()


async def test_a_condition_that_raises_is_a_fault_and_ends_nothing() -> None:
    health, whole = Health(), {"a": 1}
    health.add("broken", lambda: str(whole["b"]))
    health.summary = lambda: str(whole["c"])
    health.serving()
    assert not health.conditions().is_serving
    assert "broken: it cannot be read: see the log" in health.line()


async def test_who_waits_is_woken_by_each_change() -> None:
    health = Health()
    for change in (health.serving, health.stopping, lambda: health.starting("x")):
        waiting = asyncio.Task(health.wait_changed(3600.0))
        await asyncio.sleep(0)
        change()
        await waiting
