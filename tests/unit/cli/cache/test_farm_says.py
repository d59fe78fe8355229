"""What `hpcc explain` says of a farm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.results.records_read import CompileRecord
from hpcc.cli.cache import farm_says
from hpcc.cli.cache.farm_says import explanation_lines, farm_lines
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.core import CallerError, Digest, InfrastructureError, NotFoundError
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.reapi.explanation import Decision, Explanation, NearAction, ResultDifference

NEAR = NearAction(
    at=1000, sharing="agreed(2)", is_other_directory=False, is_other_environment=False,
    flags=("-D",), is_reordered=False, paths=tuple(f"h{n}.h" for n in range(9)), more_paths=3,
    equal=213, only_here=1, only_there=2,
)  # fmt: skip
RECORD = CompileRecord(
    at=5.0, outcome="miss.remote.executed", reason="", fallback="", output="/p/a.o",
    sources=("/p/a.c",), argv=("gcc",), cwd="/p", compiler="/usr/bin/gcc", identity="", key="",
    image="test/gcc@sha256:" + "ab" * 32, result="", duration_ms=1, action=str(Digest.of(b"a")),
)  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path)})
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    farm = Farm(
        scheduler="127.0.0.1:1", scheduler_certificate_pem="", tenant="acme", principal="ann",
        secret="s" * 32, image=RECORD.image, isolation="",
    )  # fmt: skip
    paths.farm_file.write_text(farm.to_json())
    paths.farm_file.chmod(0o600)
    return paths


def test_the_nearest_result_is_described_without_a_key() -> None:
    first, second, third = explanation_lines(
        Explanation(accepts="fresh", nearest=NEAR), is_miss=True
    )
    assert first.endswith("that serves everybody (agreed(2)): another flags -D")
    assert second.strip().endswith("h7.h, and 4 others differ")
    assert "213 other inputs are equal, 1 are read here only, 2 are read there only" in third


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Explanation(accepts="fresh"), "no other result that serves you"),
        (Explanation(), "remote.sharing forbids it"),
        (Explanation(accepts="all"), "each result of the tenant serves you"),
        (Explanation(shared="fresh", accepts="fresh"), "serves everybody now (fresh)"),
    ],
)
def test_a_miss_without_a_near_result_says_why(found: Explanation, text: str) -> None:
    (line,) = explanation_lines(found, is_miss=True)
    assert text in line
    assert explanation_lines(found, is_miss=False) == []


@pytest.mark.parametrize(
    ("difference", "decided", "remedy"),
    [
        (ResultDifference(decision=Decision.OPEN), "not decided", "nothing to do"),
        (
            ResultDifference(decision=Decision.REPEATED, is_other=True, outputs=("a.o",)),
            "yours is another one",
            "HPCC_DISABLE=1",
        ),
        (ResultDifference(decision=Decision.REPEATED), "serves everybody", "nothing to do"),
        (ResultDifference(decision=Decision.RANDOM), "not deterministic", "-frandom-seed"),
    ],
)
def test_a_disagreement_says_what_was_decided_and_what_to_do(
    difference: ResultDifference, decided: str, remedy: str
) -> None:
    found = Explanation(difference=difference)
    lines = explanation_lines(found, is_miss=False)
    assert decided in lines[1]
    assert remedy in lines[-1]
    assert explanation_lines(found, is_miss=True)[: len(lines)] == lines


def test_the_section_that_differs_is_named() -> None:
    difference = ResultDifference(
        decision=Decision.REPEATED, is_other=True, outputs=("a.o", "stderr"), section=".text"
    )
    text = "\n".join(explanation_lines(Explanation(difference=difference), is_miss=False))
    assert "differs from the shared one in a.o, stderr (first in section .text)" in text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CallerError("x", reason="explain-version"), "older version of hpcc"),
        (BusyError("x", retry_after_seconds=1, reason="explain-rate"), "too many questions"),
        (NotFoundError("x"), "no result of this compile any more"),
        (InfrastructureError("x", reason="dial"), "did not answer (dial)"),
        (TimeoutError(), "did not answer (TimeoutError)"),
    ],
)
def test_a_farm_that_does_not_answer_is_one_line(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    async def fails(*_: object) -> Explanation:
        raise error

    monkeypatch.setattr(farm_says, "ask_farm", fails)
    (line,) = farm_lines(RECORD, paths)
    assert text in line


def test_no_farm_is_asked_about_what_it_did_not_compile(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> Explanation:
        raise AssertionError("asked")

    monkeypatch.setattr(farm_says, "ask_farm", never)
    assert farm_lines(replace(RECORD, action=""), paths) == []
    (line,) = farm_lines(replace(RECORD, image="other"), paths)
    assert "another image" in line
    (line,) = farm_lines(replace(RECORD, action="nonsense"), paths)
    assert "did not answer" in line
    paths.farm_file.unlink()
    assert farm_lines(RECORD, paths) == []
