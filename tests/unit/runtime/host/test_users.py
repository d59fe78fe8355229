"""Uids of VMMs and containers: no two that run at the same time share a uid."""

from __future__ import annotations

import os

import pytest

from hpcc.ports import GuestBootError
from hpcc.runtime.host.users import Leases, vmm_user, warden_user
from hpcc.runtime.runc.spec import FIRST_UID


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
