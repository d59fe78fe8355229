"""The daemon's remote side against a farm with fake guests, over real TLS and processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import (
    Digest,
    FarmRun,
    RemoteFailure,
    RemoteInput,
    RemoteOutcome,
    RemoteRequest,
    RemoteResult,
    SharedInputs,
)
from hpcc.dispatch.remote import DispatcherClient, start_remote
from hpcc.dispatch.remote_frames import encode_inputs
from hpcc.rpc.reapi import inline_blobs
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test


def paths_of(directory: Path) -> Paths:
    return Paths(
        cache=directory / "cache",
        state=directory / "state",
        config=directory / "config",
        run=directory / "run",
    )


def client_of(farm: FarmUnderTest, timeout: float = 30.0) -> DispatcherClient:
    paths = paths_of(farm.directory)
    paths.state.mkdir(exist_ok=True)
    paths.farm_file.write_text(farm.farm().to_json())
    settings = Settings(remote=RemoteSettings(timeout_seconds=timeout))
    return start_remote(paths, settings)


def request_of(directory: Path, script: str, name: str = "a.c", **more: object) -> RemoteRequest:
    source = directory / name
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("int main(void) { return 0; }\n")
    values: dict[str, object] = {
        "argv": ("sh", "-c", script),
        "env": (("PATH", "/usr/bin:/bin"),),
        "cwd": "",
        "inputs": (RemoteInput(name, str(source), False),),
        "outputs": ("out/a.o", "out/a.d"),
        "client_version": "hpcc-test",
        **more,
    }
    return RemoteRequest(**values)


async def appears(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it and sets no event here
        await asyncio.sleep(0.02)


async def compile_(
    client: DispatcherClient,
    request: RemoteRequest,
    cancelled: Callable[[], bool] = lambda: False,
) -> RemoteOutcome:
    return await asyncio.to_thread(client.compile, request, cancelled)


async def test_each_row_names_the_build_of_its_compile(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = request_of(tmp_path / "src", "cat a.c > out/a.o")
            for build in ("github/acme/app/7/1", "release-7", ""):
                result = await compile_(client, replace(request, build=build))
                assert isinstance(result, RemoteResult), result
        finally:
            await asyncio.to_thread(client.close)
        one, two, three = farm.audit.rows
        # One action in three builds: the identity is in no key.
        assert one.action_digest == two.action_digest == three.action_digest
        assert [r.cache_status for r in (one, two, three)] == ["executed", "hit", "hit"]
        assert (one.build_id, two.build_id) == ("github/acme/app/7/1", "release-7")
        # A request without a build is the dispatcher's own.
        assert three.build_id not in {"", one.build_id, two.build_id}


async def test_a_miss_runs_in_a_guest_and_the_second_time_is_a_hit(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = request_of(tmp_path / "src", "cat a.c > out/a.o; echo warn >&2; echo said")
            first = await compile_(client, request)
            assert isinstance(first, RemoteResult), first
            assert (first.exit_code, first.stdout, first.stderr) == (0, b"said\n", b"warn\n")
            assert [o.path for o in first.outputs] == ["out/a.o"]
            assert first.outputs[0].data.startswith(b"int main")
            assert not first.is_cached
            assert first.ran is not None
            assert first.ran.worker
            assert first.ran.guest
            second = await compile_(client, request)
            assert isinstance(second, RemoteResult)
            assert second.is_cached
            assert second.ran == FarmRun(first.ran.worker)
            assert second.outputs == first.outputs
            assert second.action == first.action
        finally:
            await asyncio.to_thread(client.close)
        assert [r.cache_status for r in farm.audit.rows] == ["executed", "hit"]
        assert farm.audit.rows[0].principal == "ann"
        assert farm.audit.rows[0].client_version == "hpcc hpcc-test"
    assert farm.runtime.running == []


async def test_outputs_are_spelled_from_the_root_whatever_the_working_directory(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = request_of(
                tmp_path / "src", "cat ../a.c > x.o; echo d > ../out/a.d",
                cwd="build", outputs=("build/x.o", "out/a.d"),
            )  # fmt: skip
            result = await compile_(client, request)
            assert isinstance(result, RemoteResult), result
            assert sorted(o.path for o in result.outputs) == ["build/x.o", "out/a.d"]
        finally:
            await asyncio.to_thread(client.close)


async def test_a_large_output_is_streamed_and_checked(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = request_of(tmp_path / "src", "head -c 20000000 /dev/zero > out/a.o")
            result = await compile_(client, request)
            assert isinstance(result, RemoteResult), result
            assert len(result.outputs[0].data) == 20_000_000
        finally:
            await asyncio.to_thread(client.close)


async def test_a_large_input_is_streamed(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = request_of(tmp_path / "src", "wc -c < big > out/a.o", name="big")
            (tmp_path / "src" / "big").write_bytes(b"x" * 9_000_000)
            result = await compile_(client, request)
            assert isinstance(result, RemoteResult), result
            assert result.outputs[0].data.strip() == b"9000000"
        finally:
            await asyncio.to_thread(client.close)


async def test_a_failing_compile_is_a_result_and_is_not_cached(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = request_of(tmp_path / "src", "echo bad >&2; exit 3")
            for _ in range(2):
                result = await compile_(client, request)
                assert isinstance(result, RemoteResult), result
                assert (result.exit_code, result.is_cached) == (3, False)
        finally:
            await asyncio.to_thread(client.close)


async def test_without_a_worker_the_answer_is_a_failure(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm:
        client = client_of(farm)
        try:
            result = await compile_(client, request_of(tmp_path / "src", "true"))
            assert isinstance(result, RemoteFailure)
            assert result.reason == "no-worker"
        finally:
            await asyncio.to_thread(client.close)


async def test_a_cancel_kills_the_compile_in_the_guest(tmp_path: Path) -> None:
    mark = tmp_path / "still-alive"
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            started = tmp_path / "started"
            request = request_of(
                tmp_path / "src", f"touch {started}; sleep 2; touch {mark}; touch out/a.o"
            )
            cancel = threading.Event()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(compile_(client, request, cancel.is_set))
                await appears(started)
                cancel.set()
            result = task.result()
            assert isinstance(result, RemoteFailure)
            assert result.reason == "cancelled"
            await asyncio.sleep(2.2)
            assert not mark.exists()
        finally:
            await asyncio.to_thread(client.close)


async def test_a_killed_dispatcher_fails_what_waits_and_is_started_again(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            assert isinstance(
                await compile_(client, request_of(tmp_path / "src", "touch out/a.o")), RemoteResult
            )
            started = tmp_path / "started"
            async with asyncio.TaskGroup() as group:
                slow = request_of(tmp_path / "src", f"touch {started}; sleep 20")
                task = group.create_task(compile_(client, slow))
                await appears(started)
                assert client._link is not None
                client._link.process.kill()
            assert task.result() == RemoteFailure("dispatcher-lost", "the dispatcher process ended")
            again = await compile_(client, request_of(tmp_path / "src", "touch out/a.o"))
            assert isinstance(again, RemoteResult)
            assert again.is_cached
        finally:
            await asyncio.to_thread(client.close)


async def test_a_deadline_gives_up_and_kills_the_compile(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm, timeout=1.0)
        try:
            result = await compile_(client, request_of(tmp_path / "src", "sleep 30"))
            assert isinstance(result, RemoteFailure)
            assert result.reason in {"deadline"}
        finally:
            await asyncio.to_thread(client.close)


async def test_a_compile_that_ends_two_guests_is_quarantined_and_its_owner_told(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        farm.runtime.faults.die_in_execs = frozenset({0})
        client = client_of(farm)
        try:
            request = request_of(tmp_path / "src", "touch out/a.o")
            for _ in range(3):
                result = await compile_(client, request)
                assert isinstance(result, RemoteFailure)
                assert result.reason == "quarantined"
                assert "quarantined" in result.message
                assert "guest-lost-in-compile" in result.message
        finally:
            await asyncio.to_thread(client.close)
        # One more try in another guest, and then no guest is asked for it any more.
        assert farm.audit.names().count("guest-lost-in-compile") == 2
        (event,) = [e for e in farm.audit.events if e.name == "action-quarantined"]
        assert event.tenant == "acme"
        assert dict(event.fields)["principal"] == "ann"


async def test_checkouts_that_differ_in_case_share_what_a_guest_that_folds_made(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            found = [
                await compile_(
                    client,
                    request_of(
                        tmp_path / f"{number}", "cat ../lib/a.c > a.obj", name=name, cwd=cwd,
                        outputs=(f"{cwd}/A.obj",), folds_case=True,
                    ),
                )
                for number, (name, cwd) in enumerate([("Lib/A.c", "Out"), ("lib/a.c", "out")])
            ]  # fmt: skip
        finally:
            await asyncio.to_thread(client.close)
        one, other = found
        assert isinstance(one, RemoteResult), one
        assert isinstance(other, RemoteResult), other
        assert one.exit_code == 0, one.stderr
        assert (one.action, one.is_cached, other.is_cached) == (other.action, False, True)
        assert [o.path for r in (one, other) for o in r.outputs] == ["Out/A.obj", "out/A.obj"]


def shared_request(directory: Path, text: str) -> RemoteRequest:
    """Return a compile of `a.c` and a shared header, as the daemon's scan would plan it."""
    directory.mkdir(exist_ok=True)
    header = directory / "h.h"
    header.write_text("int h;\n")
    digest = Digest.of(header.read_bytes())
    encoded = encode_inputs([(RemoteInput("h.h", str(header), False, digest.hash), 7)])
    # The file itself is never read: its text comes along.
    source = RemoteInput("a.c", str(directory / "a.c"), False, Digest.of(text.encode()).hash)
    shared = SharedInputs(encoded, (source,), sha256(encoded).digest(), text.encode())
    return RemoteRequest(
        argv=("sh", "-c", "cat h.h a.c > a.o"),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        inputs=(source, RemoteInput("h.h", str(header), False, digest.hash)),
        outputs=("a.o",),
        shared=shared,
    )


async def test_a_changed_line_crosses_as_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = inline_blobs.InlineBlobs.__init__

    def counted(extras: inline_blobs.InlineBlobs, request: pb.ExecuteRequest) -> None:
        sizes.append(request.ByteSize())
        original(extras, request)

    monkeypatch.setattr(inline_blobs.InlineBlobs, "__init__", counted)
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            for number in range(4):
                text = f"int a = {number};\n" + "int b;\n" * 1_000
                result = await compile_(client, shared_request(tmp_path / "src", text))
                assert isinstance(result, RemoteResult), result
                assert result.outputs[0].data == b"int h;\n" + text.encode()
                assert not result.is_cached
        finally:
            await asyncio.to_thread(client.close)
        assert [row.cache_status for row in farm.audit.rows] == ["executed"] * 4
    assert len(sizes) == 4
    assert max(sizes) < 2_000


async def test_a_dispatcher_that_has_forgotten_shared_inputs_is_told_again(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        client = client_of(farm)
        try:
            request = shared_request(tmp_path / "src", "int a;\n")
            client._ready_link().is_news(request.shared)  # which it never hears
            result = await compile_(client, request)
            assert isinstance(result, RemoteResult), result
            assert result.outputs[0].data == b"int h;\nint a;\n"
        finally:
            await asyncio.to_thread(client.close)
