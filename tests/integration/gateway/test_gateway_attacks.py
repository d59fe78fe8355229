"""A gateway under clients that lie, flood or stall. Every test is named after its attack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import Blob, ImageDigest, ImageRef
from hpcc.reapi.resource import read_name, write_name
from hpcc.rpc.relay.methods import RELAY_METHODS
from hpcc_testkit.farm.gateway import GLOBEX, GatewayUnderTest, gateway_under_test
from hpcc_testkit.farm.in_process import TENANT
from hpcc_testkit.farm.stock_client import BYTESTREAM, REAPI, StockClient
from hpcc_testkit.farm.stock_steps import made, result_of, run

Codes = grpc.StatusCode
FOREIGN = ImageRef("other/gcc", ImageDigest("sha256:" + "ef" * 32))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[GatewayUnderTest]:
    async with gateway_under_test(tmp_path) as gateway, gateway.farm.serving():
        yield gateway


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_no_token_is_refused_by_every_method(
    gateway: GatewayUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="hpcc.gateway")
    digest = Blob.of(b"x").digest
    async with gateway.client() as client:
        bare = client.sending()
        for call in (
            bare.capabilities(),
            bare.find_missing([digest]),
            bare.upload([Blob.of(b"x")]),
            bare.download(digest),
            bare.cached(digest),
            bare.execute(digest),
            bare.read(read_name(TENANT, digest)),
        ):
            code, text = await refusal(call)
            assert code is Codes.UNAUTHENTICATED
            assert "hpcc token" in text
        # Before a message came, and whatever method is added.
        for path in RELAY_METHODS:
            assert await client.channel.stream_stream(path)(timeout=20).code() is (
                Codes.UNAUTHENTICATED
            ), path
    assert gateway.authenticator.logins == []
    lines = [r.getMessage() for r in caplog.records if "reason=no-token" in r.getMessage()]
    assert len(lines) == 7 + len(RELAY_METHODS), "each refusal is a line"
    assert "method=GetCapabilities" in lines[0]
    assert "peer=ipv" in lines[0]


async def test_two_tokens_in_one_call_are_refused(gateway: GatewayUnderTest) -> None:
    async with gateway.client("acme:ann", ("authorization", "Bearer globex:eve")) as client:
        assert (await refusal(client.capabilities()))[0] is Codes.UNAUTHENTICATED


async def test_a_token_of_another_tenant_is_refused(
    gateway: GatewayUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="hpcc.gateway"):
        async with gateway.client("globex:eve", instance="acme") as client:
            code, text = await refusal(client.capabilities())
    assert code is Codes.UNAUTHENTICATED
    assert "not of this tenant" in text
    line = next(r.getMessage() for r in caplog.records if "refused: gateway" in r.getMessage())
    assert "reason=idp-token-issuer" in line
    assert "globex:eve" not in caplog.text


async def test_a_token_that_was_good_for_one_tenant_opens_no_other(
    gateway: GatewayUnderTest,
) -> None:
    """The gateway caches a token's check only for the tenant that it was checked for."""
    async with gateway.client("acme:ann") as client:
        await client.capabilities()
        other = client.sending(*client.headers, instance="globex")
        assert (await refusal(other.capabilities()))[0] is Codes.UNAUTHENTICATED


async def test_a_name_that_is_no_tenant_is_refused(gateway: GatewayUnderTest) -> None:
    async with gateway.client(instance="../acme") as client:
        assert (await refusal(client.capabilities()))[0] is Codes.INVALID_ARGUMENT
    async with gateway.client(instance="") as client:
        assert (await refusal(client.capabilities()))[0] is Codes.INVALID_ARGUMENT


async def test_another_tenants_digest_is_not_there(gateway: GatewayUnderTest) -> None:
    secret = Blob.of(b"a secret source of acme")
    async with gateway.client("acme:ann") as client:
        await client.upload([secret])
        assert await client.find_missing([secret.digest]) == []
    async with gateway.client("globex:eve", instance="globex") as eve:
        assert await eve.find_missing([secret.digest]) == [secret.digest]
        answer = await eve.download(secret.digest)
        assert answer.responses[0].status.code == Codes.NOT_FOUND.value[0]
        name = read_name(GLOBEX, secret.digest)
        assert (await refusal(eve.read(name)))[0] is Codes.NOT_FOUND
        # Nor by the other tenant's name in the resource.
        name = read_name(TENANT, secret.digest)
        assert (await refusal(eve.read(name)))[0] is Codes.UNAUTHENTICATED


async def test_another_persons_operation_can_be_neither_cancelled_nor_listened_to(
    gateway: GatewayUnderTest,
) -> None:
    from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
    from google.protobuf.empty_pb2 import Empty

    blobs = made("sleep 1; cp a.c a.o")
    path = "/google.longrunning.Operations/CancelOperation"
    async with gateway.client("acme:ann") as ann, gateway.client("acme:eve") as eve:
        await ann.upload(blobs)
        digest = blobs[-1].digest
        request = pb.ExecuteRequest(
            instance_name="acme",
            action_digest=pb.Digest(hash=digest.hash, size_bytes=digest.size_bytes),
        )
        call = ann.stream(f"{REAPI}.Execution/Execute", request, ops.Operation)
        name = (await call.read()).name
        cancel = ops.CancelOperationRequest(name=name)
        assert (await refusal(eve.unary(path, cancel, Empty)))[0] is Codes.NOT_FOUND
        listen = pb.WaitExecutionRequest(name=name)
        heard = eve.stream(f"{REAPI}.Execution/WaitExecution", listen, ops.Operation)
        assert (await refusal(heard.read()))[0] is Codes.NOT_FOUND
        assert result_of([await call.read()]).status.code == 0


@pytest.mark.parametrize(
    "header",
    [("hpcc-proof", "1.x"), ("hpcc-injected-bin", b"-O3"), ("hpcc-anything", "x")],
)
async def test_smuggled_headers_of_hpccs_own_are_refused(
    gateway: GatewayUnderTest, header: tuple[str, str | bytes]
) -> None:
    async with gateway.client("acme:ann", header) as client:
        code, text = await refusal(client.capabilities())
    assert code is Codes.PERMISSION_DENIED
    assert header[0] in text


async def test_two_image_headers_are_refused(gateway: GatewayUnderTest) -> None:
    async with gateway.client("acme:ann", ("hpcc-image", str(FOREIGN))) as client:
        assert (await refusal(client.capabilities()))[0] is Codes.INVALID_ARGUMENT


async def test_an_unpinned_image_is_refused_in_the_header_and_in_an_action(
    gateway: GatewayUnderTest,
) -> None:
    async with gateway.client(image="test/gcc:latest") as client:
        code, text = await refusal(client.capabilities())
        assert code is Codes.INVALID_ARGUMENT
        assert "not pinned" in text
    blobs = made("cp a.c a.o")
    action = pb.Action.FromString(blobs[-1].data)
    action.platform.properties[0].value = "docker://test/gcc:latest"
    unpinned = Blob.of(action.SerializeToString())
    async with gateway.client() as client:
        await client.upload([*blobs, unpinned])
        code, text = await refusal(client.execute(unpinned.digest))
    assert code is Codes.INVALID_ARGUMENT
    assert "not pinned" in text
    assert gateway.farm.audit.events[-1].name == "unpinned-image"


async def test_an_image_that_the_tenant_may_not_use_is_refused(gateway: GatewayUnderTest) -> None:
    async with gateway.client(image=str(FOREIGN)) as client:
        code, text = await refusal(client.capabilities())
        assert code is Codes.PERMISSION_DENIED
        assert "not allowed for this tenant" in text
    blobs = made("cp a.c a.o", image=FOREIGN)
    async with gateway.client() as client:
        await client.upload(blobs)
        assert (await refusal(client.execute(blobs[-1].digest)))[0] is Codes.PERMISSION_DENIED
        # And it is not what the next call goes by.
        assert (await run(client.sending(client.headers[0]), "cp a.c a.o")).status.code == 0


async def test_an_action_that_names_no_image_anywhere_is_refused(
    gateway: GatewayUnderTest,
) -> None:
    blobs = made("cp a.c a.o", image=None)
    async with gateway.client() as client:
        await client.upload(blobs)
        code, text = await refusal(client.execute(blobs[-1].digest))
    assert code is Codes.INVALID_ARGUMENT
    assert "container-image" in text


async def test_a_result_of_the_clients_own_is_refused_and_written_down(
    gateway: GatewayUnderTest,
) -> None:
    request = pb.UpdateActionResultRequest(instance_name="acme")
    async with gateway.client() as client:
        path = f"{REAPI}.ActionCache/UpdateActionResult"
        code, _ = await refusal(client.unary(path, request, pb.ActionResult))
    assert code is Codes.PERMISSION_DENIED
    assert gateway.farm.audit.events[-1].name == "refused-update-action-result"


async def test_a_batch_over_the_announced_size_is_refused(gateway: GatewayUnderTest) -> None:
    async with gateway.client() as client:
        over = [Blob.of(bytes([n]) * (1 << 20)) for n in range(4)] + [Blob.of(b"x")]
        assert (await refusal(client.upload(over)))[0] is Codes.INVALID_ARGUMENT
        # One that is larger than any message is not even read.
        huge = Blob.of(bytes(6 << 20))
        assert (await refusal(client.upload([huge])))[0] is Codes.RESOURCE_EXHAUSTED


async def test_an_upload_with_gaps_overlaps_or_another_name_is_refused(
    gateway: GatewayUnderTest,
) -> None:
    blob, other = Blob.of(b"0123456789"), Blob.of(b"9876543210")
    name, other_name = (write_name(TENANT, "u", b.digest) for b in (blob, other))
    first = bs.WriteRequest(resource_name=name, data=b"01234")
    attacks = {
        "gap": [first, bs.WriteRequest(write_offset=6, data=b"6789", finish_write=True)],
        "overlap": [first, bs.WriteRequest(write_offset=4, data=b"456789", finish_write=True)],
        "negative": [first, bs.WriteRequest(write_offset=-1, data=b"56789", finish_write=True)],
        "start": [bs.WriteRequest(resource_name=name, write_offset=5, data=b"56789")],
        "more": [first, bs.WriteRequest(write_offset=5, data=b"567890", finish_write=True)],
        "less": [bs.WriteRequest(resource_name=name, data=b"01234", finish_write=True)],
        "other name": [
            first,
            bs.WriteRequest(
                resource_name=other_name, write_offset=5, data=b"56789", finish_write=True
            ),
        ],
        "other bytes": [bs.WriteRequest(resource_name=other_name, data=blob.data)],
        "too large": [
            bs.WriteRequest(resource_name=f"acme/uploads/u/blobs/{'0' * 64}/{1 << 40}", data=b"0")
        ],
        "no name": [bs.WriteRequest(data=b"0")],
    }
    async with gateway.client() as client:
        for what, pieces in attacks.items():
            code, _ = await refusal(client.write(pieces))
            assert code is Codes.INVALID_ARGUMENT, what
        assert set(await client.find_missing([blob.digest, other.digest])) == {
            blob.digest,
            other.digest,
        }


async def test_a_read_outside_a_blob_is_refused(gateway: GatewayUnderTest) -> None:
    blob = Blob.of(b"0123456789")
    name = read_name(TENANT, blob.digest)
    async with gateway.client() as client:
        await client.upload([blob])
        for offset, limit in ((11, 0), (-1, 0), (0, -1), (1 << 62, 1)):
            assert (await refusal(client.read(name, offset=offset, limit=limit)))[0] is (
                Codes.INVALID_ARGUMENT
            )
        for bad in ("acme/blobs/x/1", "acme/compressed-blobs/zstd/x/1", "acme/blobs/../1", ""):
            assert (await refusal(client.read(bad)))[0] is Codes.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_are_refused(gateway: GatewayUnderTest) -> None:
    async with gateway.client() as client:
        for method in ("ContentAddressableStorage/FindMissingBlobs", "Execution/Execute"):
            call: Any = client.channel.unary_unary(f"{REAPI}.{method}")
            code, _ = await refusal(call(b"\xff" * 64, metadata=client.headers, timeout=30))
            assert code is Codes.INVALID_ARGUMENT


async def hold_upload(client: StockClient, number: int) -> Any:
    """Begin an upload and send nothing further."""
    blob = Blob.of(str(number).encode() * 100)
    call: Any = client.channel.stream_unary(
        f"{BYTESTREAM}/Write",
        request_serializer=bs.WriteRequest.SerializeToString,
        response_deserializer=bs.WriteResponse.FromString,
    )(metadata=client.headers, timeout=120)
    # Refused already, it says so at its end.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(bs.WriteRequest(resource_name=write_name(TENANT, "u", blob.digest)))
    return call


async def test_thousands_of_streams_of_one_person_leave_room_for_others(tmp_path: Path) -> None:
    async with (
        gateway_under_test(tmp_path, max_calls_of_principal=40, max_calls_of_tenant=60) as gateway,
        gateway.farm.serving(),
        AsyncExitStack() as stack,
    ):
        calls: list[Any] = []
        for _ in range(8):
            client = await stack.enter_async_context(gateway.client("acme:eve"))
            calls += [await hold_upload(client, n) for n in range(250)]
        async with gateway.client("acme:ann") as ann:
            assert (await run(ann, "cp a.c a.o")).status.code == 0
        async with gateway.client("globex:bob", instance="globex") as bob:
            assert (await run(bob, "cp a.c a.o")).status.code == 0
        refused = [call for call in calls if call.done()]
        async with asyncio.timeout(60):
            while len(refused) < len(calls) - 40:
                await asyncio.sleep(0.05)
                refused = [call for call in calls if call.done()]
        assert len(refused) == len(calls) - 40
        assert {await call.code() for call in refused} == {Codes.RESOURCE_EXHAUSTED}
        for call in calls:
            call.cancel()


async def test_strangers_who_connect_and_say_nothing_are_sent_away(tmp_path: Path) -> None:
    async with (
        gateway_under_test(tmp_path, first_message_seconds=0.5) as gateway,
        gateway.farm.serving(),
        gateway.client("nobody:at-all") as stranger,
    ):
        silent: Any = stranger.channel.stream_stream(f"{BYTESTREAM}/Write")
        calls = [silent(metadata=stranger.headers, timeout=60) for _ in range(30)]
        codes = {await call.code() for call in calls}
        assert codes == {Codes.INVALID_ARGUMENT}
        async with gateway.client("acme:ann") as ann:
            assert (await run(ann, "cp a.c a.o")).status.code == 0


async def test_strangers_do_not_take_the_calls_of_who_was_let_in(tmp_path: Path) -> None:
    async with (
        gateway_under_test(tmp_path, max_calls=16) as gateway,
        gateway.farm.serving(),
        gateway.client("acme:ann") as ann,
        gateway.client("nobody:at-all") as stranger,
    ):
        assert (await run(ann, "cp a.c a.o")).status.code == 0
        silent: Any = stranger.channel.stream_stream(f"{BYTESTREAM}/Write")
        calls = [silent(metadata=stranger.headers, timeout=60) for _ in range(40)]
        # Strangers get half of 16; the other calls are refused.
        refused: list[Any] = []
        async with asyncio.timeout(30):
            while len(refused) < len(calls) - 8:
                await asyncio.sleep(0.05)
                refused = [call for call in calls if call.done()]
        assert {await call.code() for call in refused} == {Codes.RESOURCE_EXHAUSTED}
        assert (await run(ann, "cp a.c b.o; cp a.c a.o")).status.code == 0
        for call in calls:
            call.cancel()


def outside_the_worker(directory: Path) -> set[Path]:
    return {p for p in directory.rglob("*") if "worker" not in p.parts}


async def test_the_gateway_leaves_nothing_on_disk(tmp_path: Path) -> None:
    marker = b"bytes that only a worker may keep"
    async with (
        gateway_under_test(tmp_path) as gateway,
        gateway.farm.serving(),
        gateway.client() as client,
    ):
        before = outside_the_worker(tmp_path)
        await client.upload([Blob.of(marker)])
        after = outside_the_worker(tmp_path)
    assert after <= before | {tmp_path / "image"}
