"""All black-box scenarios, each name once."""

from __future__ import annotations

from typing import Final

from hpcc.testing import (
    _trust_data,
    _trust_driver,
    _trust_inputs,
    _trust_outputs,
    _trust_places,
    _trust_search,
    _trust_world,
)
from hpcc.testing.trust import Scenario

SCENARIOS: Final[tuple[Scenario, ...]] = (
    *_trust_search.scenarios(),
    *_trust_inputs.scenarios(),
    *_trust_outputs.scenarios(),
    *_trust_data.scenarios(),
    *_trust_driver.scenarios(),
    *_trust_places.scenarios(),
    *_trust_world.scenarios(),
)
assert len({s.name for s in SCENARIOS}) == len(SCENARIOS), "two scenarios of one name"
