"""The fake runtime passes the guest contract, so worker tests that use it are meaningful."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpcc.core import ImageDigest
from hpcc.ports import Guest, GuestSpec
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.guests.guest_contract import GuestContract
from hpcc_testkit.guests.guest_program import build_program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_program(tmp_path_factory.mktemp("program")))


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    spec = GuestSpec(image=ImageDigest("sha256:" + "0" * 64), image_path=Path("/nowhere"))
    async with FakeRuntime(tmp_path).guest(spec) as fake:
        yield fake


class TestFakeGuest(GuestContract):
    pass
