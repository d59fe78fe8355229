"""A worker as the bot of a real BuildGrid, asked by a REAPI client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops

from hpcc.core import Blob, CallerError, HpccError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import ServiceConfig, connect_service, open_service_channel
from hpcc.worker.base.drain_file import DrainRequest, write_request
from hpcc_testkit.engine.bots import Bot, action_of, bot, bot_config, until
from hpcc_testkit.engine.buildgrid import INSTANCE, Server, engine, missing_or_none
from hpcc_testkit.farm.in_process import IMAGE

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ...]]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@asynccontextmanager
async def asking(server: Server) -> AsyncGenerator[ReapiClient]:
    config = ServiceConfig(endpoint=server.endpoint, instance=INSTANCE)
    async with connect_service(config) as client:
        yield client


@asynccontextmanager
async def serving(
    tmp_path: Path, servers: tuple[Server, ...], name: str = "w1", **fields: object
) -> AsyncGenerator[Bot]:
    endpoint = ",".join(server.endpoint for server in servers)
    config = bot_config(tmp_path, endpoint, name, INSTANCE, **{"busy_seconds": 0.2, **fields})
    async with asyncio.timeout(200), bot(config) as running:
        yield running


async def run(client: ReapiClient, blobs: list[Blob]) -> pb.ActionResult:
    await client.upload(blobs)
    data, _ = await client.run(blobs[-1].digest, [])
    return pb.ActionResult.FromString(data)


async def test_actions_of_a_stock_client_run_in_guests_of_the_bot(
    tmp_path: Path, servers: tuple[Server, ...]
) -> None:
    properties = [
        ("container-image", IMAGE.platform_value), ("OSFamily", "linux"),
    ]  # fmt: skip
    good = action_of(
        f"echo {tmp_path}; cp d/a.c a.o; mkdir o; echo in > o/f", outputs=("a.o", "o"),
        files=[("d/a.c", b"int y;\n")], properties=properties,
    )  # fmt: skip
    async with serving(tmp_path, servers) as running, asking(servers[0]) as client:
        result = await run(client, good)
        assert (result.exit_code, result.stdout_raw.decode()) == (0, f"{tmp_path}\n")
        (file,), (directory,) = result.output_files, result.output_directories
        assert file.digest.hash == good[0].digest.hash
        assert directory.path == "o"
        assert (await run(client, action_of(f"echo {tmp_path}; exit 3"))).exit_code == 3
        _, is_cached = await client.run(good[-1].digest, [])
        assert is_cached, "the engine's own cache answers, and no bot"
        bad = action_of(f": {tmp_path}", properties=[*properties, ("network", "on")])
        with pytest.raises(HpccError, match="remove it from the client's execution properties"):
            await run(client, bad)
        source, *rest = action_of(f": {tmp_path}", files=[("x", str(tmp_path).encode())])
        await client.upload(rest)
        with pytest.raises(CallerError) as missing:
            await client.run(rest[-1].digest, [])
        assert getattr(missing.value, "digests", ()) == (source.digest,)
    rows = running.audit.rows
    assert [(r.cache_status, r.exit_code) for r in rows] == [("executed", 0), ("executed", 3)]
    assert {r.engine for r in rows} == {f"{servers[0].endpoint}/{INSTANCE}"}
    assert {r.principal for r in rows} == {f"engine:{INSTANCE}"}
    assert {r.lease.partition("/")[0] for r in rows} == {INSTANCE}
    assert len({r.lease for r in rows}) == len({r.guest_id for r in rows}) == 2


async def test_a_build_that_its_client_cancels_ends_its_guest(
    tmp_path: Path, servers: tuple[Server, ...]
) -> None:
    blobs = action_of(f"sleep 600; : {tmp_path}")
    config = ServiceConfig(endpoint=servers[0].endpoint, instance=INSTANCE)
    async with (
        serving(tmp_path, servers) as running,
        asking(servers[0]) as client,
        open_service_channel(config) as channel,
    ):
        await client.upload(blobs)
        request = pb.ExecuteRequest(instance_name=INSTANCE)
        request.action_digest.hash = blobs[-1].digest.hash
        request.action_digest.size_bytes = blobs[-1].digest.size_bytes
        execute = channel.unary_stream(
            "/build.bazel.remote.execution.v2.Execution/Execute",
            request_serializer=pb.ExecuteRequest.SerializeToString,
            response_deserializer=ops.Operation.FromString,
        )(request)
        operation = await execute.read()
        await running.wait_guests(1)
        cancel = channel.unary_unary(
            "/google.longrunning.Operations/CancelOperation",
            request_serializer=ops.CancelOperationRequest.SerializeToString,
        )
        await cancel(ops.CancelOperationRequest(name=operation.name))
        await running.wait_guests(0)
        await running.wait_rows(1)
        execute.cancel()
    (row,) = running.audit.rows
    assert (row.cache_status, row.reason) == ("abandoned", "cancelled")


@pytest.mark.nightly
async def test_the_loss_of_a_server_costs_no_lease(tmp_path: Path) -> None:
    """A server is killed while a lease runs; the other one has the session, too. Then all are."""
    if missing := missing_or_none():
        pytest.skip(missing)
    (tmp_path / "engine").mkdir()
    with engine(tmp_path / "engine", servers=2) as (first, second):
        for number, (lost, other) in enumerate([(first, second), (second, first)]):
            if not other.is_running:
                other.start()
            go = tmp_path / f"go{number}"
            blobs = action_of(f"while [ ! -e {go} ]; do sleep 0.05; done; cp a.c a.o")
            async with (
                serving(tmp_path, (lost, other), f"w{number}") as running,
                asking(other) as client,
                asyncio.TaskGroup() as group,
            ):
                await client.upload(blobs)
                build = group.create_task(client.run(blobs[-1].digest, []))
                await running.wait_guests(1)
                lost.kill()
                await until(lambda: "engine" in running.failed())
                await until(lambda: not running.failed())
                go.touch()
                data, _ = await build
            assert pb.ActionResult.FromString(data).exit_code == 0
            assert [r.cache_status for r in running.audit.rows] == ["executed"]


@pytest.mark.nightly
async def test_a_restart_of_the_only_server_costs_no_lease(tmp_path: Path) -> None:
    if missing := missing_or_none():
        pytest.skip(missing)
    (tmp_path / "engine").mkdir()
    go = tmp_path / "go"
    blobs = action_of(f"while [ ! -e {go} ]; do sleep 0.05; done; cp a.c a.o")
    with engine(tmp_path / "engine") as (server,):
        async with (
            serving(tmp_path, (server,), lost_seconds=170.0) as running,
            asking(server) as client,
        ):
            await client.upload(blobs)
            build = asyncio.ensure_future(client.run(blobs[-1].digest, []))
            await running.wait_guests(1)
            server.kill()
            with pytest.raises(HpccError):
                await build
            # At once in this thread: the server ends with the thread that starts it.
            server.start()
            go.touch()
            data, _ = await client.run(blobs[-1].digest, [])
    assert pb.ActionResult.FromString(data).exit_code == 0


async def test_a_drained_bot_finishes_and_takes_no_more_and_then_takes_leases_again(
    tmp_path: Path, servers: tuple[Server, ...]
) -> None:
    go = tmp_path / "go"
    first = action_of(f"while [ ! -e {go} ]; do sleep 0.05; done; cp a.c a.o")
    second = action_of(f"cp a.c a.o; : {tmp_path}")
    async with serving(tmp_path, servers) as running, asking(servers[0]) as client:
        await client.upload([*first, *second])
        async with asyncio.TaskGroup() as group:
            running_one = group.create_task(client.run(first[-1].digest, []))
            await running.wait_guests(1)
            write_request(
                running.config.state,
                DrainRequest(request="r1", is_wanted=True, seconds=120.0, by="ann", reason=""),
            )
            await until(lambda: "draining" in running.failed())
            waiting = group.create_task(client.run(second[-1].digest, []))
            go.touch()
            await running_one
            await asyncio.sleep(1.0)
            assert not waiting.done()
            assert running.runtime.booted == 1
            write_request(
                running.config.state,
                DrainRequest(request="r2", is_wanted=False, seconds=0.0, by="ann", reason=""),
            )
            await waiting
    assert [r.cache_status for r in running.audit.rows] == ["executed"] * 2
    assert running.audit.names() == ["worker-drain", "worker-drain-ended"]


@pytest.mark.nightly
async def test_a_lease_that_a_bot_gives_back_is_done_by_another(
    tmp_path: Path, servers: tuple[Server, ...]
) -> None:
    go, began = tmp_path / "go", tmp_path / "began"
    blobs = action_of(f"[ -e {go} ] || {{ : > {began}; sleep 600; }}; cp a.c a.o")
    async with asking(servers[0]) as client, asyncio.TaskGroup() as group:
        await client.upload(blobs)
        async with serving(tmp_path, servers, drain_seconds=0.1) as one:
            build = group.create_task(client.run(blobs[-1].digest, []))
            await until(began.exists)
            go.touch()
        assert [r.cache_status for r in one.audit.rows] == ["abandoned"]
        async with serving(tmp_path, servers, "w2") as two:
            data, _ = await build
    assert pb.ActionResult.FromString(data).execution_metadata.worker == "w2"
    assert [r.cache_status for r in two.audit.rows] == ["executed"]


@pytest.mark.nightly
async def test_no_row_no_result(tmp_path: Path, servers: tuple[Server, ...]) -> None:
    blobs = action_of(f"echo {tmp_path} > a.o")
    made = Blob.of(f"{tmp_path}\n".encode())
    async with serving(tmp_path, servers) as running, asking(servers[0]) as client:
        running.audit.is_broken = True
        await client.upload(blobs)
        async with asyncio.TaskGroup() as group:
            build = group.create_task(client.run(blobs[-1].digest, []))
            await until(lambda: "audit" in running.failed())
            assert await client.find_missing([made.digest]) == {made.digest}
            running.audit.is_broken = False
            data, _ = await build
        assert not await client.find_missing([made.digest])
    assert pb.ActionResult.FromString(data).exit_code == 0
    assert [r.cache_status for r in running.audit.rows] == ["executed"]
