"""A worker's explanation as a message, and what a worker that was taken over could send."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from hpcc._proto import explain_pb2 as pb
from hpcc.core import ALL_SHARING, IntegrityError
from hpcc.rpc.reapi.explanation import (
    MAX_FLAGS,
    MAX_OUTPUTS,
    MAX_PATHS,
    Decision,
    Explanation,
    NearAction,
    ResultDifference,
    explain_message,
    explanation_of,
)

NEAR = NearAction(
    at=1000, sharing="agreed(2)", is_other_directory=True, is_other_environment=False,
    flags=("-D", "-O"), is_reordered=False, paths=("config.h",), more_paths=3, equal=213,
    only_here=1, only_there=2,
)  # fmt: skip
DIFFERENCE = ResultDifference(
    decision=Decision.REPEATED, is_other=True, outputs=("a.o", "stderr"), section=".text"
)
WHOLE = Explanation(shared="fresh", accepts=ALL_SHARING.text, difference=DIFFERENCE, nearest=NEAR)


@pytest.mark.parametrize("found", [WHOLE, Explanation()])
def test_an_explanation_comes_back(found: Explanation) -> None:
    data = explain_message(found).SerializeToString()
    assert explanation_of(pb.ExplainResponse.FromString(data)) == found


def test_what_is_sent_is_bounded() -> None:
    many = tuple(f"p{n}" for n in range(500))
    near = NearAction(
        at=0, sharing="", is_other_directory=False, is_other_environment=False, flags=("-D",) * 500,
        is_reordered=False, paths=many, more_paths=1, equal=0, only_here=0, only_there=0,
    )  # fmt: skip
    difference = ResultDifference(decision=Decision.OPEN, outputs=many)
    found = explanation_of(explain_message(Explanation(difference=difference, nearest=near)))
    assert found.nearest is not None
    assert found.difference is not None
    assert len(found.difference.outputs) == MAX_OUTPUTS
    assert (len(found.nearest.flags), len(found.nearest.paths)) == (MAX_FLAGS, MAX_PATHS)
    assert found.nearest.more_paths == 501 - MAX_PATHS


@pytest.mark.parametrize(
    "message",
    [
        pb.ExplainResponse(shared="fresh\x1b[2J"),
        pb.ExplainResponse(accepts="x" * 65),
        pb.ExplainResponse(disagreement=pb.Disagreement()),
        pb.ExplainResponse(
            disagreement=pb.Disagreement(decision=pb.Disagreement.OPEN, section="\n")
        ),
        pb.ExplainResponse(
            disagreement=pb.Disagreement(decision=pb.Disagreement.OPEN, outputs=["a"] * 9)
        ),
        pb.ExplainResponse(nearest=pb.Nearest(flags=["-DTOKEN=secret"])),
        pb.ExplainResponse(nearest=pb.Nearest(paths=["a"] * 65)),
        pb.ExplainResponse(nearest=pb.Nearest(at=1 << 62)),
        pb.ExplainResponse(nearest=pb.Nearest(at=-1)),
        pb.ExplainResponse(nearest=pb.Nearest(sharing="trust me")),
    ],
)
def test_what_no_worker_sends_is_refused(message: pb.ExplainResponse) -> None:
    with pytest.raises(IntegrityError) as raised:
        explanation_of(message)
    assert raised.value.reason == "explain-form"


def test_a_path_cannot_control_a_terminal() -> None:
    found = explanation_of(
        pb.ExplainResponse(nearest=pb.Nearest(paths=["a\x1b[2J\n" + "b" * 9999]))
    )
    assert found.nearest is not None
    (path,) = found.nearest.paths
    assert path.startswith(r"a\x1b[2J\nb")
    assert len(path) < 600


@given(st.binary(max_size=200))
def test_any_bytes_are_an_explanation_or_refused(data: bytes) -> None:
    try:
        explanation_of(pb.ExplainResponse.FromString(data))
    except (DecodeError, IntegrityError):
        return
