"""Whatever happens to the inputs, a compile through hpcc leaves what the bare compiler leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc_testkit.trust.scenarios import SCENARIOS
from hpcc_testkit.trust.steps import Outcome, Scenario, differences, run_in_parallel


@pytest.fixture(scope="module")
def outcomes(
    launcher: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, list[Outcome]]:
    """Run all selected scenarios at once, so that they share their pauses."""
    wanted = {
        i.callspec.params["scenario"].name
        for i in request.session.items
        if "scenario" in getattr(getattr(i, "callspec", None), "params", {})
    }
    chosen = [s for s in SCENARIOS if s.name in wanted]
    return run_in_parallel(launcher, tmp_path_factory.mktemp("trust"), chosen)


@pytest.mark.timeout(1500)  # all scenarios share one round; on a busy machine that takes long
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_step_leaves_what_the_bare_compiler_leaves(
    scenario: Scenario, outcomes: dict[str, list[Outcome]]
) -> None:
    problems = []
    for number, (step, outcome) in enumerate(
        zip(scenario.steps, outcomes[scenario.name], strict=True), 1
    ):
        problems += [f"step {number}: {text}" for text in differences(outcome)]
        if not _is_expected(step.expect, outcome.answer):
            problems.append(
                f"step {number}: expected {step.expect}, was {outcome.answer} {dict(outcome.counted)}"
            )
    assert not problems, "\n".join(problems)


def _is_expected(expect: str, answer: str) -> bool:
    if expect == "any":
        return True
    return answer != "hit" if expect == "nohit" else answer == expect
