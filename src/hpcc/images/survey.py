"""The answers of one image, question by question: found, absent, foreign, or not answered.

A worker asks an image's guest a list of questions: which compilers there are, then what each of
them is. On a loaded machine a question can time out, or the guest can die between two questions.
Neither shows that the image lacks a compiler. Only a survey in which every question was answered
and at least one compiler was found counts as understood. Only that is kept for good; anything else
is asked again.

Example: the list names gcc and g++, gcc answers, g++ runs into its deadline. The survey has one
compiler and one unanswered question. A client that was sent this compiler alone would read
"the image has no g++" and keep every C++ compile away from the farm.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hpcc.core import ImageDigest, Toolchain
from hpcc.files.whole import Sync, write_whole

LIST: Final = "list"
"""The first question: which compilers the image has by name."""

_MAX_BYTES: Final = 64 << 10
_MAX_ANSWERS: Final = 64
_MAX_TEXT: Final = 200
_NOT_ASKED: Final = "not asked"


class AnswerKind(StrEnum):
    """The outcome of one question."""

    FOUND = "found"
    # The guest ran the lookup, and there is no such program.
    ABSENT = "absent"
    # A program of that name ran to its end and does not describe itself as GCC or Clang.
    FOREIGN = "foreign"
    # A timeout, a lost guest, an agent error or a failed exec. It proves nothing.
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class SurveyAnswer:
    """One question, named by the program that it was about, and its outcome."""

    asked: str
    kind: AnswerKind
    why: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that one guest answered, in the order of the questions."""

    answers: tuple[SurveyAnswer, ...]
    compilers: tuple[Toolchain, ...] = ()
    # Seconds since the epoch; 0 until the survey is written to a file.
    asked_at: float = 0.0

    @property
    def unanswered(self) -> tuple[SurveyAnswer, ...]:
        """Return the questions without an answer."""
        return tuple(a for a in self.answers if a.kind is AnswerKind.UNANSWERED)

    @property
    def is_complete(self) -> bool:
        """Return whether every question was answered: then what was not found is absent."""
        return bool(self.answers) and not self.unanswered

    @property
    def is_understood(self) -> bool:
        """Return whether it may be stored: it is complete and has at least one compiler."""
        return self.is_complete and bool(self.compilers)

    @property
    def trouble(self) -> str:
        """Return in one sentence what was asked and not answered; "" if it is understood."""
        if self.is_understood:
            return ""
        asked = ", ".join(a.asked for a in self.answers)
        if self.is_complete:
            return f"asked: {asked}; every question was answered, and no compiler was found"
        missing = ", ".join(f"{a.asked} ({a.why})" for a in self.unanswered)
        return f"asked: {asked}; not answered: {missing or 'everything'}"


class SurveyLog:
    """Collects answers while the guest is asked; what was answered survives a cancel."""

    def __init__(self) -> None:
        self._answers = {LIST: SurveyAnswer(LIST, AnswerKind.UNANSWERED, _NOT_ASKED)}
        self._compilers: tuple[Toolchain, ...] = ()

    def plan(self, name: str) -> None:
        """Add a question that is still to be asked."""
        if len(self._answers) < _MAX_ANSWERS:
            self._answers.setdefault(name, SurveyAnswer(name, AnswerKind.UNANSWERED, _NOT_ASKED))

    def note(self, answer: SurveyAnswer) -> None:
        """Store the outcome of a question."""
        self._answers[answer.asked] = replace(answer, why=_plain(answer.why))

    def found(self, compilers: tuple[Toolchain, ...]) -> None:
        """Store the compilers that are known so far."""
        self._compilers = compilers

    def stop(self, why: str) -> None:
        """End the survey early; `why` is the reason for the first question that is still open."""
        for name, answer in self._answers.items():
            if answer.why == _NOT_ASKED:
                self._answers[name] = SurveyAnswer(name, AnswerKind.UNANSWERED, _plain(why))
                return

    @property
    def survey(self) -> Survey:
        """Return the survey so far."""
        return Survey(tuple(self._answers.values()), self._compilers)


def survey_table(survey: Survey) -> dict[str, object]:
    """Return a survey as a JSON object, without its compilers."""
    return {
        "at": survey.asked_at,
        "answers": [
            {"asked": a.asked, "answer": a.kind.value, "why": a.why} for a in survey.answers
        ],
    }


def write_survey(path: Path, digest: ImageDigest, survey: Survey) -> None:
    """Write a survey without its compilers.

    Raises:
        OSError: it cannot be written.
    """
    replace_text(path, json.dumps({"image": digest.value, **survey_table(survey)}, indent=1))


def read_survey(path: Path, digest: ImageDigest) -> Survey | None:
    """Return the survey that `write_survey` wrote for this image; None if absent or damaged."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        table: Any = json.loads(raw) if len(raw) <= _MAX_BYTES else None
        if table["image"] != digest.value or len(table["answers"]) > _MAX_ANSWERS:
            return None
        answers = tuple(
            SurveyAnswer(_plain(a["asked"]), AnswerKind(a["answer"]), _plain(a["why"]))
            for a in table["answers"]
        )
        return Survey(answers, asked_at=float(table["at"]))
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError
    ):  # fmt: skip
        return None


def replace_text(path: Path, text: str) -> None:
    """Replace a file in one step; workers of one machine may do so at the same time.

    The aside has a random name, which `ImageStore` recognises when it removes what a crash left.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    write_whole(path, text.encode(), sync=Sync.NONE, mode=0o666, aside=aside)


def _plain(text: str) -> str:
    """Cut a text that may contain a guest's bytes, and make it safe for a terminal."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:_MAX_TEXT])
