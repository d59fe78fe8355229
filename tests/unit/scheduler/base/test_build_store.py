"""Who sees which builds, and that each person's reports push out their own only."""

from __future__ import annotations

import pytest

from hpcc.core import NotFoundError
from hpcc.identity.session_token import SessionClaims
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.scheduler.builds import BUILDS_AT_ONCE, SOURCES_AT_ONCE, build_id_of
from hpcc.scheduler.base.build_limits import BuildLimits
from hpcc.scheduler.base.build_store import BuildStore
from hpcc_testkit.farm.in_process import LaterClock
from hpcc_testkit.services.builds import summary

KIB4 = 4 << 10


def session(tenant: str, principal: str) -> SessionClaims:
    return SessionClaims(
        tenant=tenant, principal=principal, client_version="1", identity="", expires_at=9e9, serial=1
    )  # fmt: skip


ANN, BOB, ZED = session("acme", "ann"), session("acme", "bob"), session("globex", "zed")


def names(store: BuildStore, only: str | None) -> list[str]:
    return [f"{b.principal}:{b.summary.build}" for b in store.heads(only).builds]


def room(reports: int, person: int) -> BuildLimits:
    """Return limits for so many small reports."""
    return BuildLimits(total_bytes=reports * KIB4, person_bytes=person * KIB4)


def test_another_tenants_builds_are_not_shown_and_look_as_if_there_were_none() -> None:
    store = BuildStore(LaterClock())
    store.put(ANN, summary("secret-product"))
    store.put(ZED, summary("release-7"))
    assert names(store, "globex") == ["zed:release-7"]
    assert names(store, "acme") == ["ann:secret-product"]
    assert set(names(store, None)) == {"zed:release-7", "ann:secret-product"}
    other = build_id_of("acme", "ann", "secret-product")
    with pytest.raises(NotFoundError) as foreign:
        store.reports("globex", other)
    with pytest.raises(NotFoundError) as absent:
        store.reports("globex", "0" * 32)
    assert str(foreign.value) == str(absent.value)
    assert store.heads("globex").kept == 1, "nor is it counted"
    assert store.reports("acme", other).kept == store.reports(None, other).kept == 1


def test_forged_counts_and_names_stay_that_principals() -> None:
    store = BuildStore(LaterClock())
    store.put(ANN, summary("release-7"))
    store.put(BOB, summary("release-7", kinds=()))  # with ann's name and ann's source
    assert set(names(store, "acme")) == {"ann:release-7", "bob:release-7"}
    (of_ann,) = store.reports("acme", build_id_of("acme", "ann", "release-7")).reports
    assert (of_ann.principal, of_ann.summary.compiles) == ("ann", 14)
    # Neither part of an id can borrow characters of another one.
    assert build_id_of("acme", "a", "b") != build_id_of("acme", "ab", "")


def test_a_later_report_of_a_source_takes_the_place_of_the_earlier_one() -> None:
    store = BuildStore(LaterClock())
    for number in range(50):
        store.put(ANN, summary(at_once=number))
    store.put(ANN, summary(source="f" * 16))
    found = store.reports("acme", build_id_of("acme", "ann", "release-7")).reports
    assert [r.summary.source[0] for r in found] == ["f", "0"]
    assert found[1].summary.at_once == 49
    assert store.kept() == 2
    assert store.displaced() == {}


def test_a_list_has_no_details_and_a_build_has_all() -> None:
    store = BuildStore(LaterClock(), is_proved=False)
    store.put(ANN, summary())
    (head,) = store.heads(None).builds
    assert head.summary == summary().head()
    assert not head.is_proved
    (whole,) = store.reports(None, head.build_id).reports
    assert whole.summary == summary()


def test_a_flood_of_one_person_displaces_that_persons_builds_only() -> None:
    store = BuildStore(LaterClock(), room(reports=10, person=4))
    store.put(BOB, summary("mine"))
    store.put(ZED, summary("mine"))
    for number in range(100):
        store.put(ANN, summary(f"flood-{number}"))
    assert names(store, "globex") == ["zed:mine"]
    assert "bob:mine" in names(store, "acme")
    assert names(store, "acme")[:4] == [f"ann:flood-{n}" for n in (99, 98, 97, 96)]
    assert store.displaced() == {"acme": 96}
    assert store.heads("globex").displaced == 0, "nobody learns of another tenant's losses"
    assert store.heads(None).displaced == 96


def test_a_flood_of_many_people_of_one_tenant_leaves_the_others_alone() -> None:
    store = BuildStore(LaterClock(), room(reports=10, person=4))
    store.put(ZED, summary("mine"))
    for number in range(50):
        store.put(session("acme", f"bot-{number}"), summary("flood"))
    assert names(store, "globex") == ["zed:mine"]
    assert store.kept() == 10
    # A newcomer of a tenant that takes little gets its room.
    store.put(session("initech", "mia"), summary("new"))
    assert names(store, "initech") == ["mia:new"]
    assert store.kept() == 10


def test_small_reports_take_no_more_places_than_large_ones() -> None:
    store = BuildStore(LaterClock(), room(reports=8, person=8))
    large = summary("large")
    store.put(ZED, large)
    for number in range(20):
        tiny = summary(f"t{number}", kinds=(), causes=(), phases=(), places=(), slowest=(),
                       activity=())  # fmt: skip
        store.put(session("acme", f"p{number}"), tiny)
    assert names(store, "globex") == ["zed:large"]
    assert store.kept() == 8


def test_count_and_age_are_those_that_the_pages_state() -> None:
    """docs/operate.md and docs/builds.md: 14 days, 4,096 reports, 512 of one person."""
    clock = LaterClock()
    store = BuildStore(clock)
    tiny = {"kinds": (), "causes": (), "phases": (), "places": (), "slowest": (), "activity": ()}
    for number in range(600):
        store.put(ANN, summary(f"a{number}", **tiny))
    assert store.kept() == 512
    for person in range(8):
        for number in range(520):
            store.put(session("globex", f"p{person}"), summary(f"b{number}", **tiny))
    assert store.kept() == 4_096
    clock.ahead = 14 * 86_400.0 + 1
    store.put(BOB, summary("new"))
    assert store.kept() == 1


def test_an_old_report_is_dropped() -> None:
    clock = LaterClock()
    store = BuildStore(clock)
    store.put(ANN, summary("old"))
    clock.ahead = 13 * 86_400.0
    store.put(ANN, summary("new"))
    assert names(store, "acme") == ["ann:new", "ann:old"]
    clock.ahead = 14.5 * 86_400.0
    assert names(store, "acme") == ["ann:new"]
    assert store.displaced() == {}, "an end of its time is no loss"


def test_answers_are_bounded_and_say_what_they_leave_out() -> None:
    store = BuildStore(LaterClock(), BuildLimits(person_bytes=16 << 20))
    for number in range(BUILDS_AT_ONCE + 20):
        store.put(ANN, summary(f"b{number}"))
    found = store.heads("acme")
    assert (len(found.builds), found.kept) == (BUILDS_AT_ONCE, BUILDS_AT_ONCE + 20)
    for number in range(SOURCES_AT_ONCE + 5):
        store.put(BOB, summary(source=f"{number:016x}"))
    of_bob = store.reports("acme", build_id_of("acme", "bob", "release-7"))
    assert (len(of_bob.reports), of_bob.kept) == (SOURCES_AT_ONCE, SOURCES_AT_ONCE + 5)


def test_who_reports_too_often_is_told_to_wait_and_others_are_not() -> None:
    clock = LaterClock()
    store = BuildStore(clock, BuildLimits(person_per_second=2.0, tenant_per_second=3.0))
    for _ in range(10):
        store.check_rate(ANN)
    with pytest.raises(BusyError) as refused:
        store.check_rate(ANN)
    assert refused.value.reason == "build-rate"
    store.check_rate(BOB)
    for number in range(4):  # many people of one tenant
        store.check_rate(session("acme", f"bot-{number}"))
    with pytest.raises(BusyError):
        store.check_rate(session("acme", "bot-9"))
    store.check_rate(ZED)
    clock.ahead += 10.0
    store.check_rate(ANN)


def test_who_looks_too_often_is_told_to_wait_and_others_and_reports_are_not() -> None:
    limits = BuildLimits(person_looks_per_second=1.0, tenant_looks_per_second=1.2)
    store = BuildStore(LaterClock(), limits)
    for _ in range(5):
        store.check_look(ANN)
    with pytest.raises(BusyError) as refused:
        store.check_look(ANN)
    assert refused.value.reason == "build-rate"
    store.check_look(BOB)
    with pytest.raises(BusyError):
        store.check_look(session("acme", "bot"))
    store.check_look(ZED)
    store.check_rate(ANN)


def test_a_farm_that_keeps_none_says_so() -> None:
    store = BuildStore(LaterClock(), BuildLimits(total_bytes=0, person_bytes=0))
    with pytest.raises(NotFoundError) as off:
        store.check_rate(ANN)
    assert off.value.reason == "builds-off"
    assert store.heads("acme").keep_seconds == 0
