"""The whole REAPI surface of a worker, called by a malicious client with valid credentials.

No client input may choose a key, write a result, or make the worker unusable for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
from google.protobuf.empty_pb2 import Empty

from hpcc.core import Blob, CallerError, Digest, NotFoundError, PolicyError, TenantId
from hpcc.identity.tls import PinnedPeer
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.delta import Delta, make_delta
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.result import encode_result, parse_result
from hpcc.rpc.base.blob_room import MAX_TENANT_BYTES, BlobRoom
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import BusyError, MissingBlobsError
from hpcc.rpc.base.method import INJECTED_METADATA, TOOL_METADATA
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc_testkit.farm.actions import forged_token, made_action, run_script
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test

REAPI = "/build.bazel.remote.execution.v2"
SCRIPT = "cp a.c a.o"
ACTION = made_action(SCRIPT)[-1].digest
GLOBEX = TenantId("globex")


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        yield farm


async def called(
    farm: FarmUnderTest,
    method: str,
    request: Any,
    response: Any,
    *metadata: tuple[str, str | bytes],
    token: str = "",
) -> Any:
    """Make one unary call with messages and metadata that hpcc's client would never send."""
    async with farm.worker_channel() as (channel, good):
        call = channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        bearer = ("authorization", f"Bearer {token or good}")
        return await call(request, metadata=(bearer, *metadata), timeout=30)


async def streamed(
    farm: FarmUnderTest,
    method: str,
    request: Any,
    response: Any,
    *metadata: tuple[str, str | bytes],
    token: str = "",
) -> list[Any]:
    async with farm.worker_channel() as (channel, good):
        call = channel.unary_stream(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        bearer = ("authorization", f"Bearer {token or good}")
        answers = call(request, metadata=(bearer, *metadata), timeout=30)
        return [message async for message in answers]


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


async def signed_result(farm: FarmUnderTest) -> pb.ActionResult:
    """Return a result that the worker made and signed for ann."""
    async with farm.client() as client:
        await run_script(client, SCRIPT)
        return pb.ActionResult.FromString(
            encode_result(await client.cached_result(ACTION, ["a.o"]))
        )


@pytest.mark.parametrize("principal", ["ann", "mallory"])
async def test_a_stolen_laptop_cannot_write_a_result_not_even_a_truly_signed_one(
    farm: FarmUnderTest, principal: str
) -> None:
    result = await signed_result(farm)
    other = made_action("cp a.c a.o; true")[-1].digest
    token = forged_token(farm, subject=principal)
    for target in (ACTION, other):
        request = pb.UpdateActionResultRequest(
            instance_name="acme", action_digest=digest_to_proto(target), action_result=result
        )
        method = f"{REAPI}.ActionCache/UpdateActionResult"
        code = await code_of(called(farm, method, request, pb.ActionResult, token=token))
        assert code is grpc.StatusCode.PERMISSION_DENIED
    async with farm.client(token=token) as client:
        with pytest.raises(NotFoundError):
            await client.cached_result(other, [])


async def test_a_result_that_was_uploaded_as_a_blob_is_never_a_result(farm: FarmUnderTest) -> None:
    result = Blob.of((await signed_result(farm)).SerializeToString())
    async with farm.client() as client:
        await client.upload([result])
        with pytest.raises(NotFoundError):
            await client.cached_result(result.digest, [])
        with pytest.raises(CallerError):
            await client.execute(result.digest, [])


async def test_the_worker_hashes_action_command_and_tree_itself(farm: FarmUnderTest) -> None:
    """A message sent under the digest of another is neither stored nor run."""
    source, *messages, command, action = made_action("echo evil > a.o")
    good = made_action(SCRIPT)
    for lie, truth in ((command, good[-2]), (action, good[-1]), (source, messages[0])):
        request = pb.BatchUpdateBlobsRequest(instance_name="acme")
        request.requests.add(digest=digest_to_proto(truth.digest), data=lie.data)
        answer = await called(
            farm,
            f"{REAPI}.ContentAddressableStorage/BatchUpdateBlobs",
            request,
            pb.BatchUpdateBlobsResponse,
        )
        assert answer.responses[0].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    async with farm.client() as client:
        assert await client.find_missing([b.digest for b in good]) == {b.digest for b in good}


async def test_labels_and_metadata_of_a_client_never_enter_the_key_or_the_result(
    farm: FarmUnderTest,
) -> None:
    blobs = made_action(SCRIPT)
    async with farm.client() as client:
        await client.upload(blobs)
    tool = pb.RequestMetadata(
        tool_details=pb.ToolDetails(tool_name="evil", tool_version="9"),
        action_id="another",
        tool_invocation_id="b\x1b\u202e\n" * 20 + "b" * 500,
        target_id="//:x",
    ).SerializeToString()
    request = pb.ExecuteRequest(
        instance_name="acme",
        action_digest=digest_to_proto(blobs[-1].digest),
        execution_policy=pb.ExecutionPolicy(priority=-(2**31)),
        results_cache_policy=pb.ResultsCachePolicy(priority=2**31 - 1),
    )
    plain = await streamed(farm, f"{REAPI}.Execution/Execute", request, ops.Operation)
    assert plain[-1].done
    dressed = await streamed(
        farm,
        f"{REAPI}.Execution/Execute",
        request,
        ops.Operation,
        (TOOL_METADATA, tool),
        (INJECTED_METADATA, b"cp\0-fevil\0"),
        ("hpcc-action", "0" * 64),
    )
    first, second = pb.ExecuteResponse(), pb.ExecuteResponse()
    plain[-1].response.Unpack(first)
    dressed[-1].response.Unpack(second)
    assert second.cached_result
    assert second.result == first.result
    assert farm.audit.rows[-1].injected_flags == ()
    build = farm.audit.rows[-1].build_id
    assert (set(build), len(build) <= 128) == ({"b"}, True)


async def test_flags_that_one_client_calls_injected_are_not_in_a_colleagues_row(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path, guest_reuse="tenant") as farm, farm.serving():
        route = await farm.route("mallory")
        peer = PinnedPeer.from_der(route.worker_certificate)
        async with open_channel(
            route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
        ) as channel:
            config = ReapiClientConfig(tenant=TENANT, tool_version="t", injected=("-c", SCRIPT))
            await run_script(ReapiClient(channel, route.token, config), SCRIPT)
        async with farm.client(principal="ann") as client:
            assert (await run_script(client, SCRIPT))[1]
        mallorys, anns = farm.audit.rows
    assert mallorys.injected_flags == ("-c", SCRIPT)
    assert anns.cache_status == "hit"
    assert anns.injected_flags == ()


async def test_an_action_that_forbids_caching_or_fails_leaves_no_result(
    farm: FarmUnderTest,
) -> None:
    *rest, command, action = made_action(SCRIPT)
    from hpcc.reapi.action import parse_action

    uncached = Blob.of(encode_action(replace(parse_action(action.data), do_not_cache=True)))
    failing = made_action("false")
    async with farm.client() as client:
        await client.upload([*rest, command, uncached, *failing])
        for digest in (uncached.digest, failing[-1].digest):
            await client.execute(digest, [])
            with pytest.raises(NotFoundError):
                await client.cached_result(digest, [])


@pytest.mark.parametrize(
    "name",
    ["globex/operations/x-1", "acme/operations/" + "0" * 32 + "-1", "acme/operations/", "x" * 300],
)
async def test_operations_of_others_can_be_neither_joined_nor_cancelled(
    farm: FarmUnderTest, name: str
) -> None:
    waiting = streamed(
        farm, f"{REAPI}.Execution/WaitExecution", pb.WaitExecutionRequest(name=name), ops.Operation
    )
    cancel = called(
        farm,
        "/google.longrunning.Operations/CancelOperation",
        ops.CancelOperationRequest(name=name),
        Empty,
    )
    allowed = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED}
    assert {await code_of(waiting), await code_of(cancel)} <= allowed
    if name.startswith("globex/"):
        assert farm.audit.names() == ["foreign-instance"] * 2


async def test_a_token_for_the_cache_alone_cannot_join_or_cancel_a_compile(
    farm: FarmUnderTest,
) -> None:
    token = forged_token(farm, rights=frozenset({"cache"}))
    name = "acme/operations/x-1"
    waiting = streamed(
        farm,
        f"{REAPI}.Execution/WaitExecution",
        pb.WaitExecutionRequest(name=name),
        ops.Operation,
        token=token,
    )
    cancel = called(
        farm,
        "/google.longrunning.Operations/CancelOperation",
        ops.CancelOperationRequest(name=name),
        Empty,
        token=token,
    )
    assert await code_of(waiting) is grpc.StatusCode.PERMISSION_DENIED
    assert await code_of(cancel) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_foreign_tenants_name_in_a_resource_is_refused_and_recorded(
    farm: FarmUnderTest,
) -> None:
    blob = Blob.of(b"x")
    read = streamed(
        farm,
        "/google.bytestream.ByteStream/Read",
        bs.ReadRequest(resource_name=f"globex/blobs/{blob.digest}"),
        bs.ReadResponse,
    )
    assert await code_of(read) is grpc.StatusCode.PERMISSION_DENIED
    status = called(
        farm,
        "/google.bytestream.ByteStream/QueryWriteStatus",
        bs.QueryWriteStatusRequest(resource_name=f"globex/uploads/u/blobs/{blob.digest}"),
        bs.QueryWriteStatusResponse,
    )
    assert await code_of(status) is grpc.StatusCode.PERMISSION_DENIED
    tree = streamed(
        farm,
        f"{REAPI}.ContentAddressableStorage/GetTree",
        pb.GetTreeRequest(instance_name="globex", root_digest=digest_to_proto(blob.digest)),
        pb.GetTreeResponse,
    )
    assert await code_of(tree) is grpc.StatusCode.PERMISSION_DENIED
    assert farm.audit.names() == ["foreign-instance"] * 3


async def test_a_member_of_another_tenant_finds_neither_blob_nor_result_by_any_call(
    farm: FarmUnderTest,
) -> None:
    await signed_result(farm)
    token = forged_token(farm, tenant=GLOBEX, subject="ann")
    root = parse_action_root()
    reads: list[tuple[str, Any, Any]] = [
        (
            "/google.bytestream.ByteStream/Read",
            bs.ReadRequest(resource_name=f"globex/blobs/{made_action(SCRIPT)[0].digest}"),
            bs.ReadResponse,
        ),
        (
            f"{REAPI}.ContentAddressableStorage/GetTree",
            pb.GetTreeRequest(instance_name="globex", root_digest=digest_to_proto(root)),
            pb.GetTreeResponse,
        ),
    ]
    for method, request, response in reads:
        code = await code_of(streamed(farm, method, request, response, token=token))
        assert code is grpc.StatusCode.NOT_FOUND
    async with farm.client(token=token, tenant=GLOBEX) as client:
        with pytest.raises(NotFoundError):
            await client.cached_result(ACTION, [])
        with pytest.raises(CallerError):
            await client.execute(ACTION, [])


def parse_action_root() -> Digest:
    from hpcc.reapi.action import parse_action

    return parse_action(made_action(SCRIPT)[-1].data).input_root


async def test_a_wrong_size_beside_a_colleagues_digest_costs_the_blob_nothing(
    farm: FarmUnderTest,
) -> None:
    good = Blob.of(b"int x;\n" * 10)
    async with farm.client() as client:
        await client.upload([good])
        for size in (0, good.digest.size_bytes - 1, good.digest.size_bytes + 1, 1 << 20):
            with pytest.raises(NotFoundError):
                await client.download([Digest(good.digest.hash, size)])
        assert not await client.find_missing([good.digest])
        assert (await client.download([good.digest]))[good.digest].data == good.data


async def test_messages_larger_than_any_of_their_kind_are_refused_before_they_are_read(
    farm: FarmUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = Blob.of(b"\0" * (5 << 20))
    *rest, command, action = made_action(SCRIPT)
    spec = ActionSpec(command=command.digest, input_root=huge.digest, image=IMAGE, salt=b"t")
    in_command = replace(spec, command=huge.digest, input_root=parse_action_root())
    actions = [Blob.of(encode_action(s)) for s in (spec, in_command)]
    from hpcc.store.disk_blobs import DiskBlobStore

    read: list[Digest] = []
    honest = DiskBlobStore.get

    async def counted(store: DiskBlobStore, digest: Digest) -> Blob:
        read.append(digest)
        return await honest(store, digest)

    async with farm.client() as client:
        await client.upload([huge, *rest, command, action, *actions])
        monkeypatch.setattr(DiskBlobStore, "get", counted)
        for digest in (huge.digest, *(a.digest for a in actions)):
            with pytest.raises(CallerError):
                await client.execute(digest, [])
    tree = streamed(
        farm,
        f"{REAPI}.ContentAddressableStorage/GetTree",
        pb.GetTreeRequest(instance_name="acme", root_digest=digest_to_proto(huge.digest)),
        pb.GetTreeResponse,
    )
    assert await code_of(tree) is grpc.StatusCode.INVALID_ARGUMENT
    assert huge.digest not in read


async def test_uploads_that_never_end_take_a_tenants_room_and_not_the_worker(
    farm: FarmUnderTest,
) -> None:
    """Two uploads of the largest size hang; a third is refused before a byte is stored."""
    size = MAX_TENANT_BYTES // 2

    async def hanging(number: int) -> AsyncIterator[bs.WriteRequest]:
        name = f"acme/uploads/u/blobs/{number:064x}/{size}"
        yield bs.WriteRequest(resource_name=name, data=b"x")
        await asyncio.sleep(30)

    async with farm.worker_channel() as (channel, token):
        write = channel.stream_unary(
            "/google.bytestream.ByteStream/Write",
            request_serializer=bs.WriteRequest.SerializeToString,
            response_deserializer=bs.WriteResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {token}"),)
        calls = [write(hanging(n), metadata=metadata, timeout=30) for n in range(3)]
        try:
            done, _ = await asyncio.wait(
                [asyncio.ensure_future(c) for c in calls],
                return_when=asyncio.FIRST_COMPLETED,
                timeout=20,
            )
            (refused,) = done
            error = refused.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            # INTERNAL: grpcio may lose the status of a server that answers before the stream's end.
            assert error.code() in {
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.INTERNAL,
            }
            async with farm.client(
                token=forged_token(farm, tenant=GLOBEX), tenant=GLOBEX
            ) as others:
                await others.upload([Blob.of(b"x" * 5_000_000)])
        finally:
            for call in calls:
                call.cancel()


async def refused_room(room: BlobRoom, tenant: TenantId) -> None:
    async with room.hold(tenant, 1):
        raise AssertionError("there was room")


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_room_for_blobs_comes_back_however_a_transfer_ends(
    error: type[BaseException],
) -> None:
    room = BlobRoom()

    async def ended() -> None:
        async with room.hold(TENANT, MAX_TENANT_BYTES), room.hold(GLOBEX, MAX_TENANT_BYTES):
            for tenant in (TENANT, GLOBEX, TenantId("third")):
                with pytest.raises(BusyError):
                    await refused_room(room, tenant)
            raise error

    with pytest.raises(error):
        await ended()
    assert not room._held
    assert room._total == 0


async def test_a_slow_reader_gives_its_room_back_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hpcc.rpc.base.errors import DeadlineError

    monkeypatch.setattr("hpcc.rpc.base.blob_room.HOLD_SECONDS", 0.01)
    room = BlobRoom()
    with pytest.raises(DeadlineError):
        async with room.hold(TENANT, 1):
            await asyncio.sleep(30)
    assert room._total == 0


async def test_a_result_of_a_worker_reads_back_with_its_signature_in_a_stock_message(
    farm: FarmUnderTest,
) -> None:
    """Stock clients see an ordinary `ActionResult`; hpcc's part is one `Any`, which they ignore."""
    result = await signed_result(farm)
    assert [f.path for f in result.output_files] == ["a.o"]
    (ours,) = result.execution_metadata.auxiliary_metadata
    assert ours.type_url == "type.googleapis.com/google.protobuf.Struct"
    assert parse_result(result.SerializeToString()).signature is not None


async def test_a_client_without_rights_learns_nothing(farm: FarmUnderTest) -> None:
    await signed_result(farm)
    async with farm.client(token=forged_token(farm, rights=frozenset())) as client:
        with pytest.raises(PolicyError):
            await client.find_missing([ACTION])
        with pytest.raises(PolicyError):
            await client.cached_result(ACTION, [])


async def test_an_actions_blobs_may_come_with_the_call(farm: FarmUnderTest) -> None:
    blobs, other = made_action(SCRIPT), made_action("cp a.c a.o; true")
    async with farm.client() as client:
        record, is_cached = await client.execute(
            ACTION, ["a.o"], [Delta(b.digest, b.data) for b in blobs]
        )
        assert (record.inline["a.o"], is_cached) == (b"int x;\n", False)
        # The cache is asked first, so that nothing is stored for a hit.
        assert (await client.execute(ACTION, [], [Delta(Digest.of(b"x"), b"x")]))[1]
        assert await client.find_missing([Digest.of(b"x")])
        deltas = [
            make_delta(new.digest, new.data, old.digest, old.data)
            for new, old in zip(other, blobs, strict=True)
        ]
        assert sum(len(d.data) for d in deltas) < sum(len(b.data) for b in other)
        assert not (await client.execute(other[-1].digest, [], deltas))[1]
        assert client.tells_end_alone
        more = made_action("cp a.c a.o; true; true")
        whole = [Delta(b.digest, b.data) for b in more]
        for is_cached in (False, True):
            record, was_cached = await client.execute(more[-1].digest, ["a.o"], whole, at_once=True)
            assert (record.inline["a.o"], was_cached) == (b"int x;\n", is_cached)
        with pytest.raises(MissingBlobsError):
            await client.execute(Digest.of(b"nothing"), [], at_once=True)


async def test_a_blob_that_comes_with_a_call_is_what_its_digest_says(farm: FarmUnderTest) -> None:
    *blobs, action = (Delta(b.digest, b.data) for b in made_action(SCRIPT))
    lie = Delta(Digest.of(b"good"), b"evil")
    far = Delta(Digest("0" * 64, 5 << 20), b"", Digest("1" * 64, 5 << 20), 5 << 20)
    async with farm.client() as client:
        for hostile in (lie, far):
            with pytest.raises(CallerError) as refused:
                await client.execute(ACTION, [], [*blobs, hostile, action])
            assert refused.value.reason == "inline-blobs"
        assert await client.find_missing([lie.digest]) == {lie.digest}
        with pytest.raises(NotFoundError):
            await client.cached_result(ACTION, [])


async def test_another_tenants_blob_is_no_base(farm: FarmUnderTest) -> None:
    await signed_result(farm)  # acme holds all blobs of the action
    blobs = made_action(SCRIPT)
    deltas = [make_delta(b.digest, b.data, b.digest, b.data) for b in blobs]
    token = forged_token(farm, tenant=GLOBEX, subject="ann")
    async with farm.client(token=token, tenant=GLOBEX) as client:
        with pytest.raises(MissingBlobsError):
            await client.execute(ACTION, [], deltas)
        assert len(await client.find_missing(b.digest for b in blobs)) == len(blobs)


async def test_blobs_with_calls_take_a_tenants_room_and_not_the_worker(
    farm: FarmUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents and bases are in memory while the worker joins them, so they count like uploads."""
    blobs = made_action(SCRIPT)
    deltas = [Delta(b.digest, b.data) for b in blobs]
    async with farm.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr("hpcc.rpc.base.blob_room.MAX_TENANT_BYTES", 8)
            with pytest.raises(BusyError):
                await client.execute(ACTION, [], deltas)
            assert len(await client.find_missing(b.digest for b in blobs)) == len(blobs)
        assert not (await client.execute(ACTION, [], deltas))[1]
