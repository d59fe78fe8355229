"""Messages about an image that did not answer every question, and how a retry repairs it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hpcc.cli.farm import up
from hpcc.cli.main import main
from hpcc.config.paths import Paths
from hpcc.core import ExecEvent, ExecRequest, HostReport, ImageRef, ResultEvent, Toolchain
from hpcc.identity.tls import PinnedPeer
from hpcc.images.store import ImageStore
from hpcc.images.survey import AnswerKind, Survey, SurveyAnswer
from hpcc.ports import BlobSource, SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.runtime.channel import warden
from hpcc.worker.__main__ import _Images
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.guests.fake_runtime import FakeGuest
from hpcc_testkit.guests.images import Item, make_image, tar_bytes

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no erofs-utils"),
]

LATE = Survey(
    (
        SurveyAnswer("list", AnswerKind.FOUND),
        SurveyAnswer("gcc", AnswerKind.FOUND),
        SurveyAnswer("g++", AnswerKind.UNANSWERED, "deadline"),
    )
)
NONE_FOUND = Survey(
    (SurveyAnswer("list", AnswerKind.ABSENT), SurveyAnswer("gcc", AnswerKind.ABSENT))
)
GCC = Toolchain(names=("gcc",), family="gcc", version="14.2.0", target="x86_64-linux-gnu")
TROUBLE = "asked: list, gcc, g++; not answered: g++ (deadline)"


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Paths:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "h"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(warden, "warden_trouble", lambda _: "")
    return Paths.from_env({"HPCC_DIR": str(tmp_path / "h")})


@pytest.fixture
def image(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ImageRef:
    del paths
    layout = make_image([tar_bytes([Item("bin/cc", text="1")])]).write_layout(tmp_path / "l")
    assert main(["image", "import", str(layout), "--name", "localhost/me"]) == 0
    return ImageRef.parse(capsys.readouterr().out.strip())


def keep(paths: Paths, image: ImageRef, survey: Survey) -> None:
    store = ImageStore(paths.images, SystemClock())
    store.answers(image.digest).keep(survey, asked_at=1000.0)
    store.close()


def test_inspect_lists_what_was_asked_and_the_command_that_asks_again(
    paths: Paths, image: ImageRef, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(paths, image, LATE)
    assert main(["image", "inspect", "--json", "localhost/me"]) == 0
    said = capsys.readouterr()
    shown = json.loads(said.out)
    assert shown["compilers"] is None
    assert shown["not_understood"] == {
        "at": 1000.0,
        "answers": [
            {"asked": "list", "answer": "found", "why": ""},
            {"asked": "gcc", "answer": "found", "why": ""},
            {"asked": "g++", "answer": "unanswered", "why": "deadline"},
        ],
        "trouble": TROUBLE,
        "ask_again": f"hpcc down; hpcc up --image {image.digest}",
    }
    assert (said.err, said.out.count("\n")) == ("", 1)

    assert main(["image", "inspect", "localhost/me"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == shown
    assert said.err == (
        f"hpcc: the image was not understood: {TROUBLE}\n"
        "hpcc: parity is unknown: compiles go to the farm without a comparison of compilers\n"
        "hpcc: a running worker asks again by itself when it has room for a guest;"
        f" `hpcc down; hpcc up --image {image.digest}`, or a restart of the worker, asks at once\n"
    )


def test_an_understood_image_has_nothing_to_explain(
    paths: Paths, image: ImageRef, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(paths, image, LATE)
    keep(paths, image, Survey((SurveyAnswer("list", AnswerKind.FOUND),), (GCC,)))
    assert main(["image", "inspect", "localhost/me"]) == 0
    said = capsys.readouterr()
    shown = json.loads(said.out)
    assert [c["version"] for c in shown["compilers"]] == ["14.2.0"]
    assert (shown["not_understood"], said.err) == (None, "")


def test_an_image_takes_its_answers_with_it(
    paths: Paths, image: ImageRef, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(paths, image, LATE)
    assert main(["image", "rm", "localhost/me"]) == 0
    capsys.readouterr()
    assert list((paths.images / "prepared").iterdir()) == []


@pytest.mark.parametrize(
    ("survey", "detail", "cost", "remedy"),
    [
        (LATE, TROUBLE, "parity is unknown", "a running worker asks again by itself"),
        (
            NONE_FOUND, "no compiler was found", "this image cannot compile anything",
            "use an image with gcc or clang",
        ),
    ],
)  # fmt: skip
def test_doctor_says_what_was_not_answered(
    paths: Paths,
    image: ImageRef,
    capsys: pytest.CaptureFixture[str],
    survey: Survey,
    detail: str,
    cost: str,
    remedy: str,
) -> None:
    keep(paths, image, survey)
    main(["doctor", "--json"])
    check = next(c for c in json.loads(capsys.readouterr().out) if c["name"] == "parity")
    assert check["state"] == "degraded"
    assert (
        f"image {image.repository}@{image.digest.value[:19]} was not understood" in check["detail"]
    )
    assert detail in check["detail"]
    assert cost in check["cost"]
    assert remedy in check["remedy"]
    assert f"hpcc down; hpcc up --image {image.digest}" in check["remedy"]
    main(["doctor"])
    printed = capsys.readouterr().out
    assert f"fix:  {check['remedy']}" in printed
    assert "guests here:  cannot run (parity" not in printed


@pytest.mark.parametrize("is_understood", [True, False])
def test_up_warns_of_an_image_that_was_not_understood(
    paths: Paths,
    image: ImageRef,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_understood: bool,
) -> None:
    keep(
        paths,
        image,
        Survey((SurveyAnswer("list", AnswerKind.FOUND),), (GCC,)) if is_understood else LATE,
    )
    monkeypatch.setattr(up, "_start_supervisor", lambda *_: {"image": str(image)})
    monkeypatch.setattr(up, "_start_daemon", lambda: None)
    assert main(["up"]) == 0
    printed = capsys.readouterr().out
    warnings = [line for line in printed.splitlines() if line.startswith("  warning:")]
    assert len(warnings) == (0 if is_understood else 3)
    if not is_understood:
        assert warnings[0] == f"  warning:   the image was not understood: {TROUBLE}"
        assert f"`hpcc down; hpcc up --image {image.digest}`" in warnings[2]


class LateOnce(FakeGuest):
    """The first guest answers for no compiler in time; later guests do once a test lets them."""

    may_answer = asyncio.Event()

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        if self.identity.guest_id != "fake-1":
            await self.may_answer.wait()
        elif request.argv[0] != "sh":
            yield ResultEvent(exit_code=137, signal=9, reason="deadline")
            return
        async for event in super().exec(request, blobs):
            yield event


async def login(farm: FarmUnderTest) -> SessionGrant:
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"{farm.scheduler.host}:{farm.scheduler.port}",
        certificate_pem=peer.certificate_pem,
        name=peer.name,
    ) as channel:
        return await SchedulerClient(channel).authenticate(
            secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version="t",
            host=HostReport(IMAGE, ()),
        )  # fmt: skip


async def test_a_worker_serves_meanwhile_and_tells_the_scheduler_when_the_image_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.worker.execute.toolchains._FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(LateOnce, "may_answer", asyncio.Event())
    (tmp_path / "images" / "prepared").mkdir(parents=True)
    store = ImageStore(tmp_path / "images", SystemClock())
    answers = store.answers(IMAGE.digest)
    async with farm_under_test(tmp_path / "farm") as farm:
        farm.book = _Images(store, SystemClock())
        farm.runtime.guest_class = LateOnce
        async with farm.serving():
            assert answers.toolchains() is None
            survey = answers.not_understood()
            assert survey is not None
            assert {a.why for a in survey.unanswered} == {"deadline"}
            before = await farm.route()
            assert (await login(farm)).image is None, "unknown, and not without a compiler"
            LateOnce.may_answer.set()
            async with asyncio.timeout(60):
                while (grant := await login(farm)).image is None:  # noqa: ASYNC110 - of the scheduler
                    await asyncio.sleep(0.2)
            assert grant.image is not None
            assert grant.image.compilers == answers.toolchains()
            assert grant.image.compilers
            assert (await farm.route()).generation == before.generation, "the same life goes on"
        assert (farm.runtime.booted, farm.runtime.running) == (2, [])
        async with farm.serving():
            assert farm.runtime.booted == 2, "an understood image is asked once"
