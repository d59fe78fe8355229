"""All black-box scenarios, each name once; asserts that names are unique."""

from __future__ import annotations

from typing import Final

from hpcc_testkit.trust import (
    comments,
    data,
    doubts,
    driver,
    forms,
    inputs,
    installations,
    loader,
    macros,
    messages,
    outputs,
    places,
    scripts,
    search,
    warned,
    world,
    young,
)
from hpcc_testkit.trust.steps import Scenario

SCENARIOS: Final[tuple[Scenario, ...]] = (
    *search.scenarios(),
    *comments.scenarios(),
    *warned.scenarios(),
    *doubts.scenarios(),
    *inputs.scenarios(),
    *installations.scenarios(),
    *outputs.scenarios(),
    *data.scenarios(),
    *driver.scenarios(),
    *loader.scenarios(),
    *messages.scenarios(),
    *forms.scenarios(),
    *places.scenarios(),
    *macros.scenarios(),
    *scripts.scenarios(),
    *world.scenarios(),
    *young.scenarios(),
)
assert len({s.name for s in SCENARIOS}) == len(SCENARIOS), "two scenarios of one name"
