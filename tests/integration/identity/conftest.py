"""Two real identity providers for each module that logs in, because a start takes over a second."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from hpcc_testkit.services.identity_provider import RealProvider, real_provider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[RealProvider]:
    async with real_provider() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other_provider() -> AsyncIterator[RealProvider]:
    async with real_provider() as running:
        yield running
