"""A farm whose image has another compiler than the client: policies, and clients that lie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.config.farm_session import load_farm_session_or_none
from hpcc.core import (
    ClientPolicy,
    ExecEvent,
    ExecRequest,
    HostReport,
    ImageDigest,
    ImageRef,
    Parity,
    RemoteFailure,
    RemoteInput,
    RemoteOutcome,
    RemoteRequest,
    RemoteResult,
    StdioEvent,
    Toolchain,
    encode_toolchains,
)
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import FarmConnection, connect_farm
from hpcc.dispatch.routes import RouteBook
from hpcc.identity.tls import PinnedPeer
from hpcc.images.survey import Survey
from hpcc.ports import BlobSource, SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.method import bearer
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.scheduler.tenants.table import ImageRule
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE, TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.guests.fake_runtime import FakeGuest

pytestmark = pytest.mark.timeout(120)

HOST = Toolchain(
    names=("gcc",), family="gcc", version="14.2.0", build="Debian 14.2.0-19",
    target="x86_64-linux-gnu", probe=1, headers=(("/usr/include", "a" * 64),),
)  # fmt: skip
OLDER = replace(HOST, names=("gcc", "cc"), version="12.4.0", build="Debian 12.4.0-5")
CLOCK = SystemClock()


@dataclass
class Book:
    """`ToolchainBook` in memory."""

    found: dict[ImageDigest, tuple[Toolchain, ...]] = field(default_factory=dict)

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        return self.found.get(image)

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        if survey.is_understood:
            self.found[image] = survey.compilers


@pytest.fixture
def authenticator() -> PolicyAuthenticator:
    return PolicyAuthenticator()


@asynccontextmanager
async def farm_with(
    directory: Path, authenticator: PolicyAuthenticator, *image: Toolchain
) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(directory, authenticator=authenticator) as farm:
        farm.book = Book({IMAGE.digest: image})
        async with farm.serving():
            yield farm


@asynccontextmanager
async def connected(farm: FarmUnderTest) -> AsyncGenerator[FarmConnection]:
    file = farm.directory / "farm-session.json"
    async with connect_farm(farm.farm(), CLOCK, "t", session_file=file) as connection:
        yield connection


def _write(source: Path) -> None:
    source.parent.mkdir(exist_ok=True)
    source.write_text("int main(void) { return 0; }\n")


async def compile_(
    connection: FarmConnection, source: Path, host: Toolchain | None, parity: Parity = "ignore"
) -> RemoteOutcome:
    _write(source)
    request = RemoteRequest(
        argv=("gcc", "-c", "a.c", "-o", "a.o"), env=(("PATH", "/usr/bin:/bin"),), cwd="",
        inputs=(RemoteInput("a.c", str(source), is_executable=False),), outputs=("a.o",),
        toolchain=encode_toolchains([host]) if host else "",
    )  # fmt: skip
    dispatcher = Dispatcher(CLOCK, timeout_seconds=60, version="t", build_id="b", parity=parity)
    try:
        return await dispatcher.compile(connection, request)
    finally:
        dispatcher.close()


async def test_a_worker_asks_its_image_once_and_tells_what_it_found(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    async with farm_under_test(tmp_path, authenticator=authenticator) as farm:
        farm.book = book = Book()
        async with farm.serving(), connected(farm) as connection:
            await connection.worker()
            assert connection.said is not None
            assert connection.said.compilers == book.found[IMAGE.digest]
            (names, *_) = [t.names for t in book.found[IMAGE.digest] if "gcc" in t.names]
            assert "cc" in names or "gcc" in names
        assert (farm.runtime.booted, farm.runtime.running) == (1, [])
        async with farm.serving():
            assert farm.runtime.booted == 1


async def test_an_image_that_does_not_answer_is_offered_all_the_same(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    async with farm_under_test(tmp_path, authenticator=authenticator) as farm:
        farm.book = book = Book()
        farm.runtime.faults.boot_error = "no guest today"
        async with farm.serving(), connected(farm) as connection:
            farm.runtime.faults.boot_error = ""
            authenticator.says("refuse")
            assert isinstance(await compile_(connection, tmp_path / "s/a.c", HOST), RemoteResult)
            assert connection.said is not None
            assert connection.said.compilers is None
        assert book.found == {}


class Hanging(FakeGuest):
    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        del request, blobs
        await asyncio.Event().wait()
        yield StdioEvent("stdout", b"")


async def test_an_image_whose_compilers_hang_is_given_up_and_offered(
    tmp_path: Path, authenticator: PolicyAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.worker.execute.toolchains._PROBE_SECONDS", 0.05)
    async with farm_under_test(
        tmp_path, authenticator=authenticator, boot_timeout_seconds=0.05
    ) as farm:
        farm.book = book = Book()
        farm.runtime.guest_class = Hanging
        async with farm.serving(), connected(farm) as connection:
            await connection.worker()
            assert connection.said is not None
            assert connection.said.compilers is None
        assert (book.found, farm.runtime.running) == ({}, [])


@pytest.mark.parametrize(
    ("tenants", "users", "is_refused"),
    [
        ("refuse", "ignore", True),
        ("ignore", "refuse", True),
        ("warn", "warn", False),
        ("ignore", "ignore", False),
    ],
)
async def test_the_stricter_of_tenant_and_user_keeps_a_compile_here(
    tmp_path: Path,
    authenticator: PolicyAuthenticator,
    tenants: Parity,
    users: Parity,
    is_refused: bool,
) -> None:
    authenticator.says(tenants)
    async with farm_with(tmp_path, authenticator, OLDER) as farm, connected(farm) as connection:
        outcome = await compile_(connection, tmp_path / "s/a.c", HOST, users)
        assert isinstance(outcome, RemoteFailure) is is_refused, outcome
        if isinstance(outcome, RemoteFailure):
            assert outcome.reason == "parity"
            assert "gcc 14.2.0 (Debian 14.2.0-19)" in outcome.message
            assert "install gcc-12 12.4.0 (Debian 12.4.0-5)" in outcome.message
        assert len(farm.audit.rows) == (0 if is_refused else 1)


async def test_equal_compilers_and_unknown_ones_go_to_the_farm(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    authenticator.says("refuse")
    async with farm_with(tmp_path, authenticator, HOST) as farm, connected(farm) as connection:
        for host in (HOST, None):
            assert isinstance(await compile_(connection, tmp_path / "s/a.c", host), RemoteResult)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"headers": (("/usr/include", "b" * 64),)}, "not-in-image"),
        ({"headers": (("/opt/include", "a" * 64),)}, "not-in-image"),
        ({"build": "another"}, "not-in-image"),
        ({"names": ("clang-tidy-18",)}, "not-in-image"),
    ],
)
async def test_an_analyser_runs_only_in_an_image_with_the_same_tool(
    tmp_path: Path, authenticator: PolicyAuthenticator, change: dict[str, object], reason: str
) -> None:
    authenticator.says("ignore")
    tidy = replace(HOST, names=("sh",), family="clang-tidy")
    image = replace(tidy, **change)
    async with farm_with(tmp_path, authenticator, image) as farm, connected(farm) as connection:
        _write(tmp_path / "s/a.c")
        # The fake guest has no clang-tidy: the shell stands for it. It makes no file.
        request = RemoteRequest(
            argv=("sh", "-c", "cat a.c; echo 1 warning >&2"), env=(("PATH", "/usr/bin:/bin"),),
            cwd="home/me/p", outputs=(), toolchain=encode_toolchains([tidy]), needs_exact=True,
            inputs=(RemoteInput("home/me/p/a.c", str(tmp_path / "s/a.c"), is_executable=False),),
        )  # fmt: skip
        dispatcher = Dispatcher(CLOCK, timeout_seconds=60, version="t", build_id="b")
        try:
            first = await dispatcher.compile(connection, request)
            second = await dispatcher.compile(connection, request)
        finally:
            dispatcher.close()
        for outcome in (first, second):
            if isinstance(outcome, RemoteFailure):
                assert outcome.reason == reason
            else:
                assert isinstance(outcome, RemoteResult)
                assert reason == ""
                assert outcome.stdout == b"int main(void) { return 0; }\n"
                assert outcome.stderr == b"1 warning\n"
                assert outcome.outputs == ()
        assert len(farm.audit.rows) == (0 if reason else 2)


async def test_an_image_without_a_compiler_is_refused_with_that_word(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    authenticator.says("refuse")
    async with farm_with(tmp_path, authenticator) as farm, connected(farm) as connection:
        outcome = await compile_(connection, tmp_path / "s/a.c", HOST)
        assert isinstance(outcome, RemoteFailure)
        assert "it has no compiler that answers" in outcome.message


async def test_a_changed_policy_is_in_force_at_the_next_session(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    authenticator.says("refuse")
    file = tmp_path / "farm-session.json"
    async with farm_with(tmp_path, authenticator, OLDER) as farm, connected(farm) as connection:
        assert isinstance(await compile_(connection, tmp_path / "s/a.c", HOST), RemoteFailure)
        first = load_farm_session_or_none(file)
        assert first is not None
        assert first.is_of(farm.farm())
        assert first.policy == ClientPolicy(fallback="warn", parity="refuse")
        assert file.stat().st_mode & 0o777 == 0o600
        authenticator.policy = replace(authenticator.policy, parity="warn", fallback="never")
        # What its end does, an hour later.
        connection._login.forget()
        connection._book = RouteBook()
        assert isinstance(await compile_(connection, tmp_path / "s/a.c", HOST), RemoteResult)
        second = load_farm_session_or_none(file)
        assert second is not None
        assert second.policy == ClientPolicy(fallback="never", parity="warn")


async def test_a_lying_host_report_changes_nothing_but_messages(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    authenticator.says("refuse")
    results: list[RemoteResult] = []
    async with farm_with(tmp_path, authenticator, OLDER) as farm:
        for host in (replace(OLDER, names=("gcc",)), None):
            async with connected(farm) as connection:
                outcome = await compile_(connection, tmp_path / "s/a.c", host)
                assert isinstance(outcome, RemoteResult)
                results.append(outcome)
    told, silent = results
    # The same action, so the same key, and the second one finds what the first one made.
    assert told.action == silent.action
    assert (told.is_cached, silent.is_cached) == (False, True)
    assert told.outputs == silent.outputs


async def test_on_one_machine_the_users_own_settings_decide(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving(), connected(farm) as connection:
        await connection.worker()
        assert connection.said is not None
        policy = connection.said.policy
        assert policy.stricter(fallback="quiet", parity="ignore") == ("quiet", "ignore")
        assert policy.stricter(fallback="warn", parity="refuse") == ("warn", "refuse")


@asynccontextmanager
async def scheduler_channel(farm: FarmUnderTest) -> AsyncGenerator[grpc.aio.Channel]:
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"{farm.scheduler.host}:{farm.scheduler.port}",
        certificate_pem=peer.certificate_pem,
        name=peer.name,
    ) as channel:
        yield channel


async def login(farm: FarmUnderTest, image: ImageRef) -> SessionGrant:
    async with scheduler_channel(farm) as channel:
        return await SchedulerClient(channel).authenticate(
            secret="x", tenant=TENANT, principal="ann", client_version="t",
            host=HostReport(image, (HOST,)),
        )  # fmt: skip


async def test_nothing_is_said_of_an_image_that_the_tenant_may_not_use(
    tmp_path: Path, authenticator: PolicyAuthenticator
) -> None:
    async with farm_with(tmp_path, authenticator, OLDER) as farm:
        assert (await login(farm, IMAGE)).image is not None
        assert (await login(farm, OTHER_IMAGE)).image is None
        authenticator.policy = replace(
            authenticator.policy, images=(ImageRule(OTHER_IMAGE.digest),)
        )
        assert (await login(farm, IMAGE)).image is None


NONSENSE = {
    "no-image": pb.HostReport(image="", compilers=[]),
    "escapes": pb.HostReport(
        image=str(IMAGE), compilers=[pb.Toolchain(names=["gcc\x1b[2J"], family="gcc")]
    ),
    "unknown-family": pb.HostReport(
        image=str(IMAGE),
        compilers=[pb.Toolchain(names=["tcc"], family="tcc", version="1", target="x")],
    ),
    "too-many": pb.HostReport(
        image=str(IMAGE),
        compilers=[pb.Toolchain(names=["gcc"], family="gcc", version="1", target="x")] * 17,
    ),
    "too-long": pb.HostReport(
        image=str(IMAGE),
        compilers=[
            pb.Toolchain(
                names=["gcc"], family="gcc", version="1", target="x",
                headers=[pb.HeaderDigest(directory="/x", sha256=b"x" * 32)] * 1680,
            )
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
async def test_a_report_of_nonsense_is_dropped_and_costs_no_login(
    tmp_path: Path, authenticator: PolicyAuthenticator, name: str
) -> None:
    async with (
        farm_with(tmp_path, authenticator, OLDER) as farm,
        scheduler_channel(farm) as channel,
    ):
        call = channel.unary_unary(
            "/hpcc.v1.SchedulerService/Authenticate",
            request_serializer=pb.AuthenticateRequest.SerializeToString,
            response_deserializer=pb.AuthenticateResponse.FromString,
        )
        request = pb.AuthenticateRequest(
            tenant=TENANT.value, principal="ann", client_version="t", host=NONSENSE[name]
        )
        answer = await call(request, metadata=bearer("x"), timeout=10)
        assert answer.session
        assert not answer.HasField("image")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"\xff", b"[" * 100_000,
        json.dumps({"scheduler": "s"}).encode(),
        b" " * (1 << 20),
    ],
)  # fmt: skip
def test_a_damaged_session_file_says_nothing(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "farm-session.json"
    file.write_bytes(raw)
    assert load_farm_session_or_none(file) is None
