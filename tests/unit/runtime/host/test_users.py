"""Uids of VMMs and containers: no two that run at the same time share a uid."""

from __future__ import annotations

import os

import pytest

from hpcc.ports import GuestBootError
from hpcc.runtime.host.users import (
    HELPER_VARIABLE,
    Leases,
    VmmUser,
    vmm_user,
    warden_label,
    warden_maps,
    warden_user,
)
from hpcc.runtime.runc.spec import FIRST_UID
from hpcc.wire.helper import FIRST_ID, IDS, decode_request


def test_a_number_in_use_is_passed_over_however_many_come_and_go() -> None:
    numbers = Leases(4)
    taken = numbers.take()
    others = []
    for _ in range(100):
        others.append(numbers.take())
        numbers.give_back(others[-1])
    assert set(others) == {0, 1, 2, 3} - {taken}
    assert others[:4] == [1, 2, 3, 1]


def test_where_all_are_taken_there_is_no_guest() -> None:
    numbers = Leases(2)
    assert [numbers.take(), numbers.take()] == [0, 1]
    with pytest.raises(GuestBootError, match="no uid is left"):
        numbers.take()
    numbers.give_back(1)
    assert numbers.take() == 1


@pytest.mark.parametrize("pid", [1, 32_767, 4_194_303])
def test_uids_of_vmms_wardens_and_containers_are_three_ranges(
    monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr("hpcc.runtime.host.users._is_mapped", lambda _: True)
    vmms = [vmm_user(n).uid for n in range(200)]
    wardens = [warden_user(n) for n in range(200)]
    assert max(u or 0 for u in vmms) < min(u or 0 for u in wardens)
    assert max(u or 0 for u in wardens) < FIRST_UID


def unprivileged(monkeypatch: pytest.MonkeyPatch, pid: int, helper: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setenv(HELPER_VARIABLE, helper)


@pytest.mark.parametrize("pid", [1, 32_767, 4_194_303])
def test_with_a_helper_each_has_an_id_that_the_helper_gives(
    monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    unprivileged(monkeypatch, pid, "/run/h")
    vmms = [vmm_user(n) for n in range(128)]
    for user in vmms:
        assert user.maps is not None
        assert user.maps.socket == "/run/h"
        assert decode_request(user.maps.request) == (user.uid, 1)
        assert user.options() == {}  # this process cannot change to the id itself
    maps = warden_maps()
    assert maps is not None
    first, count = decode_request(maps.request)
    wardens = {warden_user(n) for n in range(1, 300)}
    assert wardens == set(range(first, first + count))
    assert wardens.isdisjoint(user.uid for user in vmms)
    assert max(u or 0 for u in wardens) < FIRST_ID + IDS
    assert warden_label() == "own-uid"


def test_without_a_helper_all_have_the_workers_user(monkeypatch: pytest.MonkeyPatch) -> None:
    unprivileged(monkeypatch, 1, "")
    assert vmm_user(3) == VmmUser(None, ())
    assert (warden_user(3), warden_maps(), warden_label()) == (None, None, "same-uid")


def test_a_worker_of_root_asks_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    unprivileged(monkeypatch, 1, "/run/h")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert vmm_user(3).maps is None
    assert warden_maps() is None
