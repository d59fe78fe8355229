"""What a worker tells about an action for `hpcc explain`, and its messages.

Both ends check: the worker cuts what it sends, and the client refuses or cuts what a worker that
was taken over could send, because the texts reach a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hpcc._proto import explain_pb2 as pb
from hpcc.core import IntegrityError
from hpcc.obs.text import one_line

MAX_FLAGS: Final = 64
MAX_PATHS: Final = 64
MAX_OUTPUTS: Final = 8
# `Explanation.accepts` where no result belongs to one principal.
ALL_RESULTS: Final = "all"
_MAX_TEXT_CHARS: Final = 512
_CLASS: Final = re.compile(r"(?:fresh|agreed\([0-9]{1,3}\))?")
# "fresh", "agreed" and further words of a policy.
_POLICY: Final = re.compile(r"[a-z0-9 ,;=()-]{0,64}")
_FLAG: Final = re.compile(r"[-/A-Za-z0-9+,_]{1,48}")
_SECTION: Final = re.compile(r"[\x21-\x7e]{0,64}")
_MAX_AT: Final = 253_402_000_000  # the year 9999


class Decision(StrEnum):
    """What decided which of several results of an action is right."""

    OPEN = "open"
    REPEATED = "repeated"
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultDifference:
    """Executions of an action gave different results; the fields are those of the message."""

    decision: Decision
    is_other: bool = False
    outputs: tuple[str, ...] = ()
    section: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearAction:
    """The nearest shared action; the fields are those of the message."""

    at: int
    sharing: str
    is_other_directory: bool
    is_other_environment: bool
    flags: tuple[str, ...]
    is_reordered: bool
    paths: tuple[str, ...]
    more_paths: int
    equal: int
    only_here: int
    only_there: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A worker's answer. `shared` is the class in which the action serves the tenant, or "".

    `accepts` is what the caller gets of colleagues' results: a policy, `ALL_RESULTS` or "".
    """

    shared: str = ""
    accepts: str = ""
    difference: ResultDifference | None = None
    nearest: NearAction | None = None


_DECISIONS: Final = {
    Decision.OPEN: pb.Disagreement.OPEN,
    Decision.REPEATED: pb.Disagreement.REPEATED,
    Decision.RANDOM: pb.Disagreement.RANDOM,
}


def explain_message(found: Explanation) -> pb.ExplainResponse:
    """Encode an explanation."""
    message = pb.ExplainResponse(shared=found.shared, accepts=found.accepts)
    if (difference := found.difference) is not None:
        message.disagreement.CopyFrom(
            pb.Disagreement(
                decision=_DECISIONS[difference.decision],
                is_other=difference.is_other,
                outputs=difference.outputs[:MAX_OUTPUTS],
                section=difference.section,
            )
        )
    if (near := found.nearest) is not None:
        message.nearest.CopyFrom(
            pb.Nearest(
                at=near.at,
                sharing=near.sharing,
                is_other_directory=near.is_other_directory,
                is_other_environment=near.is_other_environment,
                flags=near.flags[:MAX_FLAGS],
                is_reordered=near.is_reordered,
                paths=near.paths[:MAX_PATHS],
                more_paths=near.more_paths + max(0, len(near.paths) - MAX_PATHS),
                equal=near.equal,
                only_here=near.only_here,
                only_there=near.only_there,
            )
        )
    return message


def explanation_of(message: pb.ExplainResponse) -> Explanation:
    """Parse a worker's answer.

    Raises:
        IntegrityError: it is more or something else than a worker sends.
    """
    _check(_CLASS.fullmatch(message.shared) and _POLICY.fullmatch(message.accepts))
    return Explanation(
        shared=message.shared,
        accepts=message.accepts,
        difference=_difference(message.disagreement) if message.HasField("disagreement") else None,
        nearest=_near(message.nearest) if message.HasField("nearest") else None,
    )


def _difference(message: pb.Disagreement) -> ResultDifference:
    found = [d for d, number in _DECISIONS.items() if number == message.decision]
    _check(found and len(message.outputs) <= MAX_OUTPUTS and _SECTION.fullmatch(message.section))
    return ResultDifference(
        decision=found[0],
        is_other=message.is_other,
        outputs=_lines(message.outputs),
        section=message.section,
    )


def _near(message: pb.Nearest) -> NearAction:
    _check(len(message.flags) <= MAX_FLAGS and len(message.paths) <= MAX_PATHS)
    _check(all(_FLAG.fullmatch(flag) for flag in message.flags))
    _check(0 <= message.at <= _MAX_AT and _CLASS.fullmatch(message.sharing))
    return NearAction(
        at=message.at,
        sharing=message.sharing,
        is_other_directory=message.is_other_directory,
        is_other_environment=message.is_other_environment,
        flags=tuple(message.flags),
        is_reordered=message.is_reordered,
        paths=_lines(message.paths),
        more_paths=message.more_paths,
        equal=message.equal,
        only_here=message.only_here,
        only_there=message.only_there,
    )


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(one_line(text[:_MAX_TEXT_CHARS]) for text in texts)


def _check(is_right: object) -> None:
    if not is_right:
        raise IntegrityError("the worker's explanation is malformed", reason="explain-form")
