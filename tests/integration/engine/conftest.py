"""An engine that a test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hpcc_testkit.engine.scripted import ScriptedEngine, scripted_engine


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as made:
        yield made
