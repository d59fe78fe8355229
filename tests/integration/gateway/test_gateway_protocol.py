"""A stock client calls real workers through a gateway over TLS; the guests are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops

from hpcc.core import Blob, Digest
from hpcc.reapi.resource import read_name, write_name
from hpcc.worker.base.drain_file import DrainRequest, report_or_none, write_request
from hpcc_testkit.farm.gateway import GatewayUnderTest, gateway_under_test
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE, TENANT
from hpcc_testkit.farm.stock_client import BYTESTREAM, REAPI, StockClient
from hpcc_testkit.farm.stock_steps import made, result_of, run


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[GatewayUnderTest]:
    async with gateway_under_test(tmp_path) as gateway, gateway.farm.serving():
        yield gateway


async def test_a_build_step_goes_through_and_its_result_is_cached(
    gateway: GatewayUnderTest,
) -> None:
    async with gateway.client() as client:
        capabilities = await client.capabilities()
        assert capabilities.low_api_version.major == 2
        assert not capabilities.cache_capabilities.action_cache_update_capabilities.update_enabled
        first = await run(client, "cat a.c > a.o; echo said; echo warned >&2")
        assert (first.status.code, first.result.exit_code) == (0, 0)
        assert (first.result.stdout_raw, first.result.stderr_raw) == (b"said\n", b"warned\n")
        (output,) = first.result.output_files
        digest = Digest(output.digest.hash, output.digest.size_bytes)
        assert (await client.download(digest)).responses[0].data == b"int x;\n"
        assert await client.cached(made("cat a.c > a.o; echo said; echo warned >&2")[-1].digest)
        assert (await run(client, "cat a.c > a.o; echo said; echo warned >&2")).cached_result
    rows = gateway.farm.audit.rows
    assert [r.cache_status for r in rows] == ["executed", "hit", "hit"]
    assert {r.principal for r in rows} == {"ann"}
    assert rows[0].client_version.startswith("gateway ")
    assert gateway.authenticator.logins == ["acme"]


async def test_the_image_may_stand_in_the_action_or_in_the_command(
    gateway: GatewayUnderTest,
) -> None:
    async with gateway.client() as client:
        for image, in_command in ((IMAGE, None), (None, IMAGE), (IMAGE, IMAGE)):
            blobs = made("cp a.c a.o", image=image, in_command=in_command)
            await client.upload(blobs)
            response = result_of(await client.execute(blobs[-1].digest))
            assert response.status.code == 0, response.status


async def test_an_action_decides_its_image_whatever_the_header_says(tmp_path: Path) -> None:
    async with gateway_under_test(tmp_path) as gateway, AsyncExitStack() as stack:
        digests = (IMAGE.digest.value, OTHER_IMAGE.digest.value)
        gateway.farm.worker_fields["image_digests"] = digests
        await stack.enter_async_context(gateway.farm.serving())
        client = await stack.enter_async_context(gateway.client(image=str(OTHER_IMAGE)))
        response = await run(client, "cp a.c a.o")
        assert response.status.code == 0, response.status


async def test_a_client_that_names_no_image_gets_its_tenants_default(tmp_path: Path) -> None:
    defaults = (f"acme={IMAGE}",)
    async with (
        gateway_under_test(tmp_path, default_images=defaults) as gateway,
        gateway.farm.serving(),
        gateway.client(image="") as client,
    ):
        assert (await run(client, "cp a.c a.o")).status.code == 0


async def test_a_client_that_names_no_image_is_told_how(gateway: GatewayUnderTest) -> None:
    async with gateway.client(image="") as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.capabilities()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "--remote_header=hpcc-image=repo@sha256:" in (caught.value.details() or "")


async def test_a_large_blob_goes_up_in_pieces_and_comes_down_from_any_offset(
    gateway: GatewayUnderTest,
) -> None:
    blob = Blob.of(bytes(range(256)) * 24_000)
    name = write_name(TENANT, "u", blob.digest)
    step = 1_000_000
    pieces = [
        bs.WriteRequest(
            resource_name=name if not at else "",
            write_offset=at,
            data=blob.data[at : at + step],
            finish_write=at + step >= blob.digest.size_bytes,
        )
        for at in range(0, blob.digest.size_bytes, step)
    ]
    async with gateway.client() as client:
        status = await client.unary(
            f"{BYTESTREAM}/QueryWriteStatus",
            bs.QueryWriteStatusRequest(resource_name=name),
            bs.QueryWriteStatusResponse,
        )
        assert (status.committed_size, status.complete) == (0, False)
        assert (await client.write(pieces)).committed_size == blob.digest.size_bytes
        # Once more, though it is there: the answer comes before the last piece.
        assert (await client.write(pieces)).committed_size == blob.digest.size_bytes
        source = read_name(TENANT, blob.digest)
        assert await client.read(source) == blob.data
        assert await client.read(source, offset=6_000_001) == blob.data[6_000_001:]
        assert await client.read(source, offset=5, limit=7) == blob.data[5:12]
        assert await client.read(source, offset=blob.digest.size_bytes) == b""


async def test_blobs_and_actions_of_one_person_meet_on_one_worker(
    gateway: GatewayUnderTest,
) -> None:
    """Two workers are equally idle, and the client requests its routes again."""
    other = gateway.another_worker("w2")
    async with other.serving(), gateway.client() as client:
        for number in range(6):
            response = await run(client, f"cp a.c a.o; echo {number}")
            assert response.status.code == 0
        # A token of the next hour, as the same person; the same worker has the blobs.
        again = client.sending(("authorization", "Bearer acme:ann:next"), *client.headers[1:])
        assert await again.find_missing([made("cp a.c a.o; echo 1")[-1].digest]) == []
    booted = (gateway.farm.runtime.booted, other.runtime.booted)
    assert sorted(booted) == [0, 1]


async def test_a_dead_worker_is_gone_round_once_and_its_blobs_asked_for_again(
    tmp_path: Path,
) -> None:
    async with gateway_under_test(tmp_path) as gateway, AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(gateway.farm.serving())
        client = await stack.enter_async_context(gateway.client())
        assert (await run(client, "cp a.c a.o")).status.code == 0
        other = gateway.another_worker("w2")
        await stack.enter_async_context(other.serving())
        await first.aclose()
        blobs = made("cp a.c a.o; true")
        # The route to the first worker is still good for minutes, and nobody is there.
        assert len(await client.find_missing([b.digest for b in blobs])) == len(blobs)
        await client.upload(blobs)
        response = result_of(await client.execute(blobs[-1].digest))
        assert response.status.code == 0
        assert other.runtime.booted == 1


async def test_a_draining_worker_is_gone_round_although_its_route_is_good(tmp_path: Path) -> None:
    """A client that compiles at w1 does so at w2 after one answer that its blobs are not there."""
    async with gateway_under_test(tmp_path) as gateway, gateway.farm.serving():
        state = tmp_path / "worker" / "state"
        other = gateway.another_worker("w2")
        async with gateway.client() as client:
            assert (await run(client, "cp a.c a.o")).status.code == 0
            async with other.serving():
                wanted = DrainRequest(request="r", is_wanted=True, seconds=60.0, by="", reason="")
                write_request(state, wanted)
                while report_or_none(state) is None:  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.05)
                assert (await run(client, "cp a.c a.o")).cached_result, (
                    "it still serves what it has"
                )
                assert [await code_of(client, "cp a.c a.o; true") for _ in range(2)] == [9, 0]
        assert (gateway.farm.runtime.booted, other.runtime.booted) == (1, 1)


async def code_of(client: StockClient, script: str) -> int:
    try:
        return int((await run(client, script)).status.code)
    except grpc.aio.AioRpcError as error:
        return int(error.code().value[0])


async def test_long_stdio_is_a_blob_and_not_in_the_answer(gateway: GatewayUnderTest) -> None:
    script = "head -c 200000 /dev/zero | tr '\\0' x; echo short >&2; cp a.c a.o"
    async with gateway.client() as client:
        first = await run(client, script)
        assert (first.result.stdout_raw, first.result.stderr_raw) == (b"", b"short\n")
        digest = Digest(first.result.stdout_digest.hash, first.result.stdout_digest.size_bytes)
        assert (await client.download(digest)).responses[0].data == b"x" * 200_000
        again = await run(client, script)
        assert again.cached_result
        assert again.result == first.result


async def test_an_action_may_have_empty_inputs_that_nobody_uploaded(
    gateway: GatewayUnderTest,
) -> None:
    empty = Blob.of(b"")
    async with gateway.client() as client:
        assert await client.find_missing([empty.digest]) == []
        assert await client.read(read_name(TENANT, empty.digest)) == b""


async def test_output_directories_are_trees_also_from_the_cache(
    gateway: GatewayUnderTest,
) -> None:
    blobs = made(
        "mkdir -p d/x e; echo 1 > d/x/one; cp a.c a.o", directories=("d", "e", "none/at/all")
    )
    async with gateway.client() as client:
        await client.upload(blobs)
        first = result_of(await client.execute(blobs[-1].digest))
        assert first.status.code == 0, first.status
        again = result_of(await client.execute(blobs[-1].digest))
        assert again.cached_result
        assert again.result.output_directories == first.result.output_directories
        trees = {}
        for output in first.result.output_directories:
            digest = Digest(output.tree_digest.hash, output.tree_digest.size_bytes)
            data = (await client.download(digest)).responses[0].data
            trees[output.path] = pb.Tree.FromString(data)
        assert trees["e"] == trees["none/at/all"] == pb.Tree(root=pb.Directory())
        (node,) = trees["d"].children[0].files
        content = await client.download(Digest(node.digest.hash, node.digest.size_bytes))
        assert content.responses[0].data == b"1\n"


async def test_a_cached_result_whose_tree_lost_a_file_is_a_miss(
    gateway: GatewayUnderTest,
) -> None:
    blobs = made("mkdir -p d; echo lost > d/one; cp a.c a.o", directories=("d",))
    async with gateway.client() as client:
        await client.upload(blobs)
        assert result_of(await client.execute(blobs[-1].digest)).status.code == 0
        lost = Blob.of(b"lost\n").digest
        assert await client.find_missing([lost]) == []
        remove_blob(gateway.farm.directory / "worker/store", lost)
        again = result_of(await client.execute(blobs[-1].digest))
        assert (again.status.code, again.cached_result) == (0, False)
        assert await client.find_missing([lost]) == []


def remove_blob(store: Path, digest: Digest) -> None:
    found = [p for p in store.rglob("*") if digest.hash in f"{p.parent.name}{p.name}"]
    assert found
    for path in found:
        path.unlink()


async def test_an_execution_without_its_inputs_says_which_are_missing(
    gateway: GatewayUnderTest,
) -> None:
    blobs = made("cp a.c a.o")
    async with gateway.client() as client:
        await client.upload(blobs[1:])
        response = result_of(await client.execute(blobs[-1].digest))
    assert response.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert any(blobs[0].digest.hash.encode() in d.value for d in response.status.details)


async def test_who_lost_the_stream_of_an_execution_can_wait_for_it(
    gateway: GatewayUnderTest,
) -> None:
    blobs = made("sleep 1; cp a.c a.o")
    path = f"{REAPI}.Execution"
    async with gateway.client() as client:
        await client.upload(blobs)
        request = pb.ExecuteRequest(
            instance_name="acme",
            action_digest=pb.Digest(
                hash=blobs[-1].digest.hash, size_bytes=blobs[-1].digest.size_bytes
            ),
        )
        call = client.stream(f"{path}/Execute", request, ops.Operation)
        name = (await call.read()).name
        wait = pb.WaitExecutionRequest(name=name)
        waiting = client.stream(f"{path}/WaitExecution", wait, ops.Operation)
        told = [await waiting.read()]
        call.cancel()
        told.append(await waiting.read())
        assert result_of(told).status.code == 0
