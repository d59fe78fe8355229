"""Each parser that `hpcc_testkit.fuzz` fuzzes returns for every input that was kept, and near it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc_testkit.fuzz.targets import TARGETS
from hpcc_testkit.suite.examples import examples

# The library warns of numbers in certificates that a later version refuses.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")
CORPUS = Path(__file__).parent / "corpus"
SMALL = {
    name: sorted(data for data in target.inputs(CORPUS).values() if len(data) < 5000)
    for name, target in TARGETS.items()
}


@pytest.mark.parametrize("name", TARGETS)
def test_each_kept_input_shows_no_defect(name: str) -> None:
    inputs = TARGETS[name].inputs(CORPUS)
    assert inputs
    for data in inputs.values():
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=examples(40))
@given(st.data())
def test_each_kept_input_may_be_damaged(name: str, data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SMALL[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    TARGETS[name].run(bytes(damaged))
