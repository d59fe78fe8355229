"""The daemon with another REAPI service as its engine: buildbox-casd, which runs real compilers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcc.config.farm import engine_farm_or_none
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.config.settings import RemoteSettings, Settings, parse_settings
from hpcc.core import (
    CallerError,
    Isolation,
    RemoteFailure,
    RemoteInput,
    RemoteOutcome,
    RemoteRequest,
    RemoteResult,
)
from hpcc.dispatch.engine import _TokenFile
from hpcc.dispatch.remote import DispatcherClient, start_remote
from hpcc_testkit.services.buildbox import Casd, casd, missing_or_none

pytestmark = pytest.mark.timeout(300)

IMAGE = "registry.example/gcc@sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Casd]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with casd(tmp_path_factory.mktemp("engine"), executes=True) as running:
        yield running


def client_of(directory: Path, endpoint: str, **more: Any) -> DispatcherClient:
    paths = Paths(
        cache=directory / "c", state=directory / "s", config=directory / "o", run=directory / "r"
    )
    paths.state.mkdir(exist_ok=True)
    values: dict[str, Any] = {"engine": endpoint, "engine_image": IMAGE, "timeout_seconds": 120.0}
    return start_remote(paths, Settings(remote=RemoteSettings(**values | more)))


def request_of(directory: Path, text: str) -> RemoteRequest:
    source = directory / "a.c"
    source.write_text(text)
    return RemoteRequest(
        argv=("gcc", "-c", "sub/a.c", "-o", "out/a.o", "-MMD", "-MF", "out/a.d", "-Wall"),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        inputs=(RemoteInput("sub/a.c", str(source), False),),
        directories=("out",),
        outputs=("out/a.o", "out/a.d"),
    )


def run_gcc(directory: Path) -> None:
    subprocess.run(["gcc", "-c", "sub/a.c", "-o", "a.o"], cwd=directory, check=True)


async def compile_(client: DispatcherClient, request: RemoteRequest) -> RemoteOutcome:
    return await asyncio.to_thread(client.compile, request, lambda: False)


async def test_a_compile_goes_through_the_engine_and_then_comes_from_its_cache(
    service: Casd, tmp_path: Path
) -> None:
    client = client_of(tmp_path, service.endpoint)
    try:
        request = request_of(tmp_path, "int f(void) { int unused; return 42; }\n")
        first = await compile_(client, request)
        assert isinstance(first, RemoteResult), first
        again = await compile_(client, request)
        assert isinstance(again, RemoteResult)
    finally:
        client.close()
    assert (first.is_cached, again.is_cached) == (False, True)
    assert first.isolation is again.isolation is Isolation.FOREIGN_UNKNOWN
    assert first.outputs == again.outputs
    assert b"unused" in first.stderr  # which this service gives as a blob
    outputs = {o.path: o.data for o in first.outputs}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.c").write_text("int f(void) { int unused; return 42; }\n")
    run_gcc(tmp_path)
    assert outputs["out/a.o"] == (tmp_path / "a.o").read_bytes()
    assert b"sub/a.c" in outputs["out/a.d"]


async def test_a_compile_that_fails_there_says_so(service: Casd, tmp_path: Path) -> None:
    client = client_of(tmp_path, service.endpoint)
    try:
        outcome = await compile_(client, request_of(tmp_path, "int f( {\n"))
    finally:
        client.close()
    assert isinstance(outcome, RemoteResult)
    assert outcome.exit_code == 1
    assert b"error" in outcome.stderr
    assert "out/a.o" not in {o.path for o in outcome.outputs}


async def test_a_service_that_only_stores_is_no_engine(tmp_path: Path) -> None:
    if missing := missing_or_none():
        pytest.skip(missing)
    with casd(tmp_path / "casd") as storing:
        client = client_of(tmp_path, storing.endpoint)
        try:
            outcome = await compile_(client, request_of(tmp_path, "int x;\n"))
        finally:
            client.close()
    assert isinstance(outcome, RemoteFailure)
    assert outcome.reason == "engine-capabilities"


async def test_an_engine_that_dies_is_a_failure_and_no_hang(tmp_path: Path) -> None:
    if missing := missing_or_none():
        pytest.skip(missing)
    with casd(tmp_path / "casd", executes=True) as engine:
        client = client_of(tmp_path, engine.endpoint)
        try:
            assert isinstance(
                await compile_(client, request_of(tmp_path, "int x;\n")), RemoteResult
            )
            engine.kill()
            outcome = await compile_(client, request_of(tmp_path, "int y;\n"))
        finally:
            client.close()
    assert isinstance(outcome, RemoteFailure)


async def test_a_token_that_others_can_read_is_not_sent(service: Casd, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("word\n")
    token.chmod(0o644)
    client = client_of(tmp_path, service.endpoint, engine_token_file=str(token))
    try:
        outcome = await compile_(client, request_of(tmp_path, "int x;\n"))
    finally:
        client.close()
    assert isinstance(outcome, RemoteFailure)
    assert outcome.reason == "engine-file"


def test_a_token_is_read_again_when_its_file_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_private_file(path, b"one\n")
    token = _TokenFile(str(path))
    assert token.changed_or_none() == "one"
    assert token.changed_or_none() is None
    write_private_file(path, b"two\n")
    assert token.changed_or_none() == "two"
    # A token that cannot be sent raises each time, until the file is corrected.
    write_private_file(path, b"two words\n")
    for _ in range(2):
        with pytest.raises(CallerError, match="one word"):
            token.changed_or_none()
    path.unlink()
    with pytest.raises(CallerError, match="cannot read"):
        token.changed_or_none()
    assert _TokenFile("").changed_or_none() is None


async def test_an_engine_that_is_set_up_wrong_is_no_reason_to_use_a_farm(tmp_path: Path) -> None:
    client = client_of(tmp_path, "grpcs://engine.example", engine_image="gcc:latest")
    (tmp_path / "s" / "farm.json").write_text("another farm")
    try:
        assert client.farm() is None
        assert isinstance(await compile_(client, request_of(tmp_path, "int x;\n")), RemoteFailure)
    finally:
        client.close()


def test_two_engines_share_no_local_results() -> None:
    tenants = set()
    for engine, instance in (("grpcs://a", ""), ("grpcs://b", ""), ("grpcs://a", "main")):
        farm = engine_farm_or_none(
            RemoteSettings(engine=engine, engine_instance=instance, engine_image=IMAGE)
        )
        assert farm is not None
        assert farm.isolation == "foreign/unknown"
        tenants.add(farm.tenant)
    assert len(tenants) == 3


@pytest.mark.parametrize(
    "text",
    [
        "engine = 5",
        'engine_token_file = "relative"',
        f'engine = "{"x" * 5000}"',
    ],
)
def test_an_engine_setting_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        parse_settings(f"[remote]\n{text}\n")
