"""QEMU guests pass the guest contract, and the rules that only a virtual machine can keep."""

from __future__ import annotations

import pytest

from hpcc_testkit.guests.vm_contract import VmContract

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def program() -> str:
    return "/probe"


class TestQemuGuest(VmContract):
    """See the contract."""
