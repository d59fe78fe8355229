"""An unanswered question proves nothing, so its outcome is never stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hpcc.compilers.probe import PROBE_FORMAT
from hpcc.config.farm_session import FarmSession
from hpcc.core import (
    CallerError,
    ClientPolicy,
    ExecEvent,
    ExecRequest,
    ImageDigest,
    ImageRef,
    ImageToolchains,
    Level,
    ResultEvent,
    StdioEvent,
    Toolchain,
)
from hpcc.dispatch.parity import parity_verdict
from hpcc.images.store import ImageStore
from hpcc.images.survey import AnswerKind, Survey, SurveyAnswer, SurveyLog
from hpcc.images.toolchains import probe_guest
from hpcc.ports import BlobSource, GuestLostError, GuestSpec, SystemClock
from hpcc.worker.execute.toolchains import Prober
from hpcc.worker.pool.pool import GuestShape
from hpcc_testkit.guests.fake_runtime import FakeGuest, FakeRuntime

pytestmark = pytest.mark.timeout(60)

DIGEST = ImageDigest("sha256:" + "ab" * 32)
ABOUT = b"Target: x86_64-linux-gnu\ngcc version 14.2.0 (Debian 14.2.0-19)\n"
GCC = Toolchain(
    names=("gcc",), family="gcc", version="14.2.0", build="Debian 14.2.0-19",
    target="x86_64-linux-gnu", probe=PROBE_FORMAT,
)  # fmt: skip
NAMES = b"/usr/bin/gcc /usr/bin/gcc\n/usr/bin/g++ /usr/bin/g++\n/usr/bin/clang /usr/bin/clang\n"
ENDED = ResultEvent(exit_code=0)
ABSENT = ResultEvent(exit_code=127, reason="no-such-program")
LATE = ResultEvent(exit_code=137, signal=9, reason="deadline")
Ends = dict[str, ExecEvent | Exception | None]


class Guest(FakeGuest):
    """Lists three compilers and describes each, except the programs in `ends`."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.asked: list[str] = []
        self.wall_seconds: set[float] = set()

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        del blobs
        name = request.argv[0]
        self.asked.append(name)
        self.wall_seconds.add(request.limits.wall_seconds)
        end = self.ends.get(name, ENDED)
        if isinstance(end, Exception):
            raise end
        if end is not ABSENT:
            yield StdioEvent("stdout", NAMES) if name == "sh" else StdioEvent("stderr", ABOUT)
        if end is not None:
            yield end


async def surveyed(ends: Ends) -> Survey:
    log = SurveyLog()
    try:
        await probe_guest(Guest(ends), log)
    except GuestLostError as error:
        log.stop(str(error))
    return log.survey


def kinds(survey: Survey) -> dict[str, str]:
    return {a.asked: a.kind.value for a in survey.answers}


async def test_an_image_that_answers_every_question_is_understood() -> None:
    survey = await surveyed({})
    assert kinds(survey) == {"list": "found", "gcc": "found", "g++": "found", "clang": "found"}
    assert survey.is_understood
    assert survey.trouble == ""


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (LATE, "deadline"),
        (ResultEvent(exit_code=137, signal=9, reason="memory"), "memory"),
        (ResultEvent(exit_code=1, reason="agent-error"), "agent-error"),
        (ResultEvent(exit_code=139, signal=11), "ended by signal 11"),
        (CallerError("the request breaks a limit"), "the request breaks a limit"),
        (None, "the guest sent no result"),
    ],
)
async def test_one_question_without_an_answer_is_not_an_absent_compiler(
    end: ExecEvent | Exception | None, why: str
) -> None:
    """The timed-out compiler printed its description, but that does not prove that it works."""
    survey = await surveyed({"g++": end})
    assert kinds(survey)["g++"] == "unanswered"
    assert kinds(survey)["clang"] == "found", "the questions after it are asked all the same"
    assert not survey.is_complete
    assert survey.trouble == f"asked: list, gcc, g++, clang; not answered: g++ ({why})"


async def test_a_failed_exec_without_a_description_is_no_answer() -> None:
    class Silent(Guest):
        async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
            if request.argv[0] == "g++":
                yield ResultEvent(exit_code=127)
            else:
                async for event in super().exec(request, blobs):
                    yield event

    log = SurveyLog()
    await probe_guest(Silent({}), log)
    assert "g++ (exit code 127 without a description)" in log.survey.trouble


async def test_a_guest_lost_after_two_questions_leaves_the_others_unanswered() -> None:
    survey = await surveyed({"g++": GuestLostError("the guest died")})
    assert kinds(survey) == {
        "list": "found", "gcc": "found", "g++": "unanswered", "clang": "unanswered",
    }  # fmt: skip
    assert survey.trouble.endswith("not answered: g++ (the guest died), clang (not asked)")
    assert not survey.is_understood


async def test_a_list_without_an_answer_leads_to_no_other_question() -> None:
    guest, log = Guest({"sh": LATE}), SurveyLog()
    assert await probe_guest(guest, log) == ()
    assert guest.asked == ["sh"]
    assert log.survey.trouble == "asked: list; not answered: list (deadline)"


async def test_a_lookup_that_finds_no_file_proves_that_there_is_none() -> None:
    survey = await surveyed({"g++": ABSENT})
    assert kinds(survey)["g++"] == "absent"
    assert survey.is_understood


async def test_an_image_without_any_compiler_is_complete_and_not_understood() -> None:
    names = ("sh", "gcc", "g++", "cc", "c++", "clang", "clang++", "clang-cl")
    survey = await surveyed(dict.fromkeys(names, ABSENT))
    assert survey.is_complete
    assert not survey.is_understood
    assert survey.trouble.endswith("every question was answered, and no compiler was found")


async def test_patience_gives_each_question_more_time() -> None:
    guest = Guest({})
    await probe_guest(guest, patience=4.0)
    assert guest.wall_seconds == {240.0}


UNFINISHED = Survey(
    (
        SurveyAnswer("list", AnswerKind.FOUND),
        SurveyAnswer("gcc", AnswerKind.FOUND),
        SurveyAnswer("g++", AnswerKind.UNANSWERED, "deadline"),
    ),
    (GCC,),
)
NONE_FOUND = Survey(
    (SurveyAnswer("list", AnswerKind.ABSENT), SurveyAnswer("gcc", AnswerKind.ABSENT))
)
WHOLE = Survey(
    (SurveyAnswer("list", AnswerKind.FOUND), SurveyAnswer("gcc", AnswerKind.FOUND)), (GCC,)
)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    (tmp_path / "prepared").mkdir()
    return ImageStore(tmp_path, SystemClock())


@pytest.mark.parametrize(
    "damage",
    [{"at": 10**400}, {"answers": [{"asked": [1], "answer": "found", "why": ""}]}, {"answers": {}}],
)
def test_a_damaged_survey_is_none(
    store: ImageStore, tmp_path: Path, damage: dict[str, object]
) -> None:
    answers = store.answers(DIGEST)
    answers.keep(UNFINISHED, asked_at=12.5)
    (file,) = (tmp_path / "prepared").glob("*.asked")
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    kept = answers.not_understood()
    assert kept is None or kept.answers == ()


@pytest.mark.parametrize("survey", [UNFINISHED, NONE_FOUND, SurveyLog().survey])
def test_what_is_not_understood_is_kept_for_people_and_asked_again(
    store: ImageStore, tmp_path: Path, survey: Survey
) -> None:
    answers = store.answers(DIGEST)
    answers.keep(survey, asked_at=12.5)
    assert answers.toolchains() is None
    assert list((tmp_path / "prepared").glob("*.compilers")) == []
    kept = answers.not_understood()
    assert kept is not None
    assert (kept.answers, kept.asked_at, kept.compilers) == (survey.answers, 12.5, ())
    answers.keep(WHOLE, asked_at=13.0)
    assert answers.toolchains() == (GCC,)
    assert answers.not_understood() is None
    assert [p.suffix for p in (tmp_path / "prepared").iterdir()] == [".compilers"]
    answers.remove()
    assert list((tmp_path / "prepared").iterdir()) == []


@pytest.mark.parametrize(("asked", "compilers"), [(2, []), (None, []), (2, ["gcc"])])
def test_a_file_of_an_earlier_release_is_asked_again(
    store: ImageStore, tmp_path: Path, asked: int | None, compilers: list[str]
) -> None:
    """An empty list would make every run fail; a list of some compilers may lack the late ones."""
    answers = store.answers(DIGEST)
    answers.keep(WHOLE, asked_at=1.0)
    (path,) = (tmp_path / "prepared").glob("*.compilers")
    table = json.loads(path.read_text())
    table = {
        **table,
        "asked": asked or table["asked"],
        "compilers": table["compilers"] if compilers else [],
    }
    path.write_text(json.dumps(table))
    assert answers.toolchains() is None


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"[" * 9999, b"\xff", b" " * (1 << 20)])
def test_a_damaged_survey_says_nothing(store: ImageStore, tmp_path: Path, raw: bytes) -> None:
    answers = store.answers(DIGEST)
    answers.keep(UNFINISHED, asked_at=1.0)
    (path,) = (tmp_path / "prepared").iterdir()
    path.write_bytes(raw)
    assert answers.not_understood() is None


def test_a_reason_with_escapes_does_not_reach_a_terminal() -> None:
    log = SurveyLog()
    log.stop("\x1b]0;owned\x07" + "x" * 999)
    (answer,) = log.survey.answers
    assert answer.why.isprintable()
    assert len(answer.why) == 200


def judged(compilers: tuple[Toolchain, ...] | None) -> tuple[Level, bool, str]:
    image = ImageRef("r.example/gcc", DIGEST)
    session = FarmSession(
        scheduler="s:1", tenant="acme", image=str(image), expires_at=1.0,
        policy=ClientPolicy(parity="refuse"), compilers=compilers,
    )  # fmt: skip
    found = parity_verdict(session, "refuse", "gcc", GCC, image)
    return found.finding.level, found.refuses, found.text


def test_an_image_that_was_not_understood_refuses_nobody_and_has_its_own_sentence() -> None:
    level, refuses, text = judged(None)
    assert (level, refuses) == (Level.UNKNOWN, False)
    assert "no worker has got an answer to every question yet" in text
    assert "has no compiler" not in text
    level, refuses, text = judged(())
    assert (level, refuses) == (Level.OTHER, True)
    assert "it has no compiler that answers" in text


class Book:
    """`ToolchainBook` in memory."""

    def __init__(self) -> None:
        self.surveys: list[Survey] = []

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        del image
        last = self.surveys[-1] if self.surveys else None
        return last.compilers if last is not None and last.is_understood else None

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        del image
        self.surveys.append(survey)


class Images:
    async def image(self, digest: ImageDigest) -> Path:
        del digest
        return Path("image")


class Runtime(FakeRuntime):
    """Yields the guests that the test made, in order."""

    guests: list[Guest]

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncGenerator[FakeGuest]:
        del spec
        self.booted += 1
        yield self.guests.pop(0)


class Clock(SystemClock):
    """Records the pauses without waiting."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


def prober(tmp_path: Path, *guests: Guest) -> tuple[Prober, Book, Clock]:
    runtime = Runtime(tmp_path)
    runtime.guests = list(guests)
    book, clock = Book(), Clock()
    shape = GuestShape(memory_mib=64, boot_timeout_seconds=5)
    return Prober(runtime, Images(), book, shape, vcpus=1, clock=clock), book, clock


async def test_a_worker_asks_again_with_longer_pauses_until_the_image_answers(
    tmp_path: Path,
) -> None:
    guests = [Guest({"g++": LATE}), Guest({"sh": LATE}), Guest({"gcc": LATE}), Guest({})]
    asker, book, clock = prober(tmp_path, *guests)
    assert await asker.learn([DIGEST], lambda _: None) == ()
    told: list[ImageToolchains] = []
    await asker.learn_rest(lambda: True, told.append)
    assert clock.pauses == [60.0, 120.0, 240.0]
    assert [max(g.wall_seconds) for g in guests] == [60.0, 120.0, 240.0, 240.0]
    assert [t.image for t in told] == [DIGEST]
    assert [s.is_understood for s in book.surveys] == [False, False, False, True]


async def test_an_image_that_is_proven_to_have_no_compiler_is_not_asked_in_a_loop(
    tmp_path: Path,
) -> None:
    names = ("sh", "gcc", "g++", "cc", "c++", "clang", "clang++", "clang-cl")
    asker, book, clock = prober(tmp_path, Guest(dict.fromkeys(names, ABSENT)))
    assert await asker.learn([DIGEST], lambda _: None) == (ImageToolchains(DIGEST, ()),)
    await asker.learn_rest(lambda: True, lambda _: None)
    assert clock.pauses == []
    assert await book.known(DIGEST) is None, "the next worker asks it again"


class Hanging(Guest):
    def __init__(self, begun: Callable[[], None]) -> None:
        super().__init__({})
        self.begun = begun

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        del request, blobs
        self.begun()
        await asyncio.Event().wait()
        yield ENDED


async def test_a_compile_that_needs_the_memory_ends_the_probe(tmp_path: Path) -> None:
    room = [True]
    asker, book, _ = prober(
        tmp_path, Guest({"g++": LATE}), Hanging(lambda: room.append(False)), Guest({})
    )
    await asker.learn([DIGEST], lambda _: None)

    def has_room() -> bool:
        # No room from the probe's begin until it was ended once, and enough again later.
        if room[-1] is False:
            room.append(True)
            return False
        return True

    told: list[ImageToolchains] = []
    await asker.learn_rest(has_room, told.append)
    assert len(book.surveys) == 2, "an attempt that was ended has no survey"
    assert len(told) == 1


async def test_without_room_for_a_guest_nothing_is_asked(tmp_path: Path) -> None:
    asker, book, clock = prober(tmp_path, Guest({"g++": LATE}), Guest({}))
    await asker.learn([DIGEST], lambda _: None)
    looks: list[int] = []

    def has_room() -> bool:
        looks.append(len(book.surveys))
        return len(looks) > 3

    await asker.learn_rest(has_room, lambda _: None)
    assert clock.pauses == [60.0] * 4
    assert looks[:4] == [1, 1, 1, 1]
