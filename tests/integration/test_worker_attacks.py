"""The worker against lying clients and against its own faults, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import (
    Blob,
    CallerError,
    Digest,
    GuestReuse,
    InfrastructureError,
    Isolation,
    NotFoundError,
    PolicyError,
    TenantId,
)
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.tls import PinnedPeer
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.digests import digest_to_proto
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import MissingBlobsError, UnauthenticatedError, UnavailableError
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc_testkit.farm.actions import forged_token as forged
from hpcc_testkit.farm.actions import made_action as made
from hpcc_testkit.farm.actions import run_script as run
from hpcc_testkit.farm.in_process import (
    IMAGE,
    OTHER_IMAGE,
    TENANT,
    FarmUnderTest,
    LaterClock,
    farm_under_test,
)

REAPI = "/build.bazel.remote.execution.v2"


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        yield farm


async def test_a_forged_good_token_works_so_that_the_others_prove_something(
    farm: FarmUnderTest,
) -> None:
    async with farm.client(token=forged(farm)) as client:
        assert await client.find_missing([Digest.of(b"x")])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"audience": "other-worker"}, "token-audience"),
        ({"issuer": "other"}, "token-issuer"),
        ({"not_before": 1.0, "expires_at": 2.0}, "token-expired"),
    ],
)
async def test_a_token_that_is_not_for_here_and_now_is_refused(
    farm: FarmUnderTest, changes: dict[str, object], reason: str
) -> None:
    async with farm.client(token=forged(farm, **changes)) as client:
        with pytest.raises(UnauthenticatedError) as caught:
            await client.find_missing([Digest.of(b"x")])
    assert caught.value.reason == reason
    assert farm.audit.events[-1].fields == (("reason", reason),)


async def test_another_tenants_instance_name_is_refused_and_recorded(farm: FarmUnderTest) -> None:
    async with farm.client(tenant=TenantId("globex")) as client:
        for call in (
            client.find_missing([Digest.of(b"x")]),
            client.upload([Blob.of(b"x")]),
            client.cached_result(Digest.of(b"x"), []),
        ):
            with pytest.raises(PolicyError) as caught:
                await call
            assert caught.value.reason == "foreign-tenant"
    assert farm.audit.names() == ["foreign-instance"] * 3


async def test_another_tenants_blobs_and_results_are_not_there(farm: FarmUnderTest) -> None:
    async with farm.client() as ours:
        await run(ours, "cp a.c a.o")
    token = forged(farm, tenant=TenantId("globex"))
    async with farm.client(token=token, tenant=TenantId("globex")) as theirs:
        blobs = made("cp a.c a.o")
        assert await theirs.find_missing([b.digest for b in blobs]) == {b.digest for b in blobs}
        with pytest.raises(NotFoundError):
            await theirs.download([blobs[0].digest])
        with pytest.raises(NotFoundError):
            await theirs.cached_result(blobs[-1].digest, [])


async def test_a_colleagues_guest_never_makes_my_results(farm: FarmUnderTest) -> None:
    async with farm.client(principal="ann") as ann:
        assert await run(ann, "cp a.c a.o") == (b"int x;\n", False)
    async with farm.client(principal="bob") as bob:
        assert await run(bob, "cp a.c a.o") == (b"int x;\n", False)
    guests = {(r.principal, r.guest_id) for r in farm.audit.rows}
    assert len({g for _, g in guests}) == 2
    assert {r.reuse for r in farm.audit.rows} == {GuestReuse.PRINCIPAL.value}


async def test_with_reuse_tenant_colleagues_share_and_the_row_says_so(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, guest_reuse="tenant") as farm, farm.serving():
        async with farm.client(principal="ann") as ann:
            await run(ann, "cp a.c a.o")
        async with farm.client(principal="bob") as bob:
            assert (await run(bob, "cp a.c a.o"))[1]
    assert [(r.principal, r.reuse, r.cache_status) for r in farm.audit.rows] == [
        ("ann", "tenant", "executed"),
        ("bob", "tenant", "hit"),
    ]


@pytest.mark.parametrize("where", ["command", "action", "both"])
async def test_an_image_that_is_not_the_tokens_is_refused(farm: FarmUnderTest, where: str) -> None:
    blobs = made(
        "cp a.c a.o",
        image=IMAGE if where == "action" else OTHER_IMAGE,
        in_action=IMAGE if where == "command" else OTHER_IMAGE,
    )
    async with farm.client() as client:
        await client.upload(blobs)
        with pytest.raises(PolicyError) as caught:
            await client.execute(blobs[-1].digest, [])
    assert caught.value.reason == "foreign-image"
    assert "foreign-image" in farm.audit.names()


async def test_a_token_that_wants_more_isolation_is_refused(farm: FarmUnderTest) -> None:
    async with farm.client(token=forged(farm, minimum_isolation=Isolation.QEMU_TCG)) as client:
        with pytest.raises(PolicyError) as caught:
            await client.find_missing([Digest.of(b"x")])
    assert caught.value.reason == "isolation"
    assert farm.audit.names() == ["isolation-too-weak"]


async def test_a_token_without_the_right_to_execute_cannot(farm: FarmUnderTest) -> None:
    blobs = made("cp a.c a.o")
    async with farm.client(token=forged(farm, rights=frozenset({"cache"}))) as client:
        await client.upload(blobs)
        with pytest.raises(PolicyError):
            await client.execute(blobs[-1].digest, [])


async def raw(farm: FarmUnderTest, method: str, request: object, response: object) -> object:
    """Call with messages that hpcc's client would never send."""
    route = await farm.route()
    peer = PinnedPeer.from_der(route.worker_certificate)
    async with open_channel(
        route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        call = channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(request, metadata=(("authorization", f"Bearer {route.token}"),))


async def test_a_client_can_never_write_a_result(farm: FarmUnderTest) -> None:
    request = pb.UpdateActionResultRequest(
        instance_name="acme", action_digest=digest_to_proto(Digest.of(b"x"))
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(farm, f"{REAPI}.ActionCache/UpdateActionResult", request, pb.ActionResult)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "refused-update-action-result" in farm.audit.names()


async def test_capabilities_say_what_is_true(farm: FarmUnderTest) -> None:
    answer = await raw(
        farm,
        f"{REAPI}.Capabilities/GetCapabilities",
        pb.GetCapabilitiesRequest(instance_name="acme"),
        pb.ServerCapabilities,
    )
    assert isinstance(answer, pb.ServerCapabilities)
    assert answer.low_api_version.major == 2
    assert answer.low_api_version.minor == 0
    assert not answer.cache_capabilities.action_cache_update_capabilities.update_enabled
    assert list(answer.cache_capabilities.digest_functions) == [pb.DigestFunction.SHA256]


async def test_bytes_that_do_not_match_their_digest_are_refused(farm: FarmUnderTest) -> None:
    request = pb.BatchUpdateBlobsRequest(instance_name="acme")
    request.requests.add(digest=digest_to_proto(Digest.of(b"good")), data=b"evil")
    answer = await raw(
        farm,
        f"{REAPI}.ContentAddressableStorage/BatchUpdateBlobs",
        request,
        pb.BatchUpdateBlobsResponse,
    )
    assert isinstance(answer, pb.BatchUpdateBlobsResponse)
    assert answer.responses[0].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    async with farm.client() as client:
        assert await client.find_missing([Digest.of(b"good")])


@pytest.mark.parametrize("case", ["short", "long", "other", "unordered", "huge", "renamed"])
async def test_a_stream_that_lies_about_its_blob_is_refused(farm: FarmUnderTest, case: str) -> None:
    good = Blob.of(b"0123456789")
    name = f"acme/uploads/u/blobs/{good.digest}"
    first: dict[str, Any] = {"resource_name": name, "write_offset": 0}
    messages = {
        "short": [bs.WriteRequest(**first, data=b"01234", finish_write=True)],
        "long": [bs.WriteRequest(**first, data=b"0123456789X", finish_write=True)],
        "other": [bs.WriteRequest(**first, data=b"9876543210", finish_write=True)],
        "unordered": [
            bs.WriteRequest(**first, data=b"01234"),
            bs.WriteRequest(write_offset=7, data=b"789", finish_write=True),
        ],
        "huge": [
            bs.WriteRequest(
                resource_name=f"acme/uploads/u/blobs/{good.digest.hash}/{1 << 39}", data=b"x"
            )
        ],
        "renamed": [
            bs.WriteRequest(**first, data=b"01234"),
            bs.WriteRequest(resource_name="x", write_offset=5, data=b"56789", finish_write=True),
        ],
    }[case]
    route = await farm.route()
    peer = PinnedPeer.from_der(route.worker_certificate)
    async with open_channel(
        route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        call = channel.stream_unary(
            "/google.bytestream.ByteStream/Write",
            request_serializer=bs.WriteRequest.SerializeToString,
            response_deserializer=bs.WriteResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(iter(messages), metadata=(("authorization", f"Bearer {route.token}"),))
    # INTERNAL: grpcio may lose the status of a server that answers before the stream's end.
    assert caught.value.code() in {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
    }
    async with farm.client() as client:
        assert await client.find_missing([good.digest])


async def test_an_oversized_message_is_refused(farm: FarmUnderTest) -> None:
    request = pb.BatchUpdateBlobsRequest(instance_name="acme")
    data = b"x" * (5 << 20)
    request.requests.add(digest=digest_to_proto(Digest.of(data)), data=data)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(
            farm,
            f"{REAPI}.ContentAddressableStorage/BatchUpdateBlobs",
            request,
            pb.BatchUpdateBlobsResponse,
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["../x", "a/b", ".", ""])
async def test_a_directory_that_escapes_never_reaches_a_guest(
    farm: FarmUnderTest, name: str
) -> None:
    good = made("cp a.c a.o")
    evil = pb.Directory(files=[pb.FileNode(name=name, digest=digest_to_proto(good[0].digest))])
    root = Blob.of(evil.SerializeToString())
    action = Blob.of(
        encode_action(
            ActionSpec(command=good[-2].digest, input_root=root.digest, image=IMAGE, salt=b"t")
        )
    )
    async with farm.client() as client:
        await client.upload([*good, root, action])
        with pytest.raises(CallerError):
            await client.execute(action.digest, [])
    assert farm.runtime.booted == 0


async def test_a_missing_input_is_named(farm: FarmUnderTest) -> None:
    source, *rest = made("cp a.c a.o")
    async with farm.client() as client:
        await client.upload(rest)
        with pytest.raises(MissingBlobsError) as caught:
            await client.execute(rest[-1].digest, [])
    assert caught.value.digests == (source.digest,)


async def test_a_corrupt_input_in_the_store_is_missing_and_can_be_sent_again(
    tmp_path: Path,
) -> None:
    blobs, clock = made("cp a.c a.o"), LaterClock()
    async with (
        farm_under_test(tmp_path, clock=clock) as farm,
        farm.serving(),
        farm.client() as client,
    ):
        await client.upload(blobs)
        clock.ahead += 60.0  # the worker has no longer in memory what it got
        name = blobs[0].digest.hash
        stored = farm.directory / "worker/store/acme/cas" / name[:2] / name
        stored.write_bytes(b"evil x\n")
        with pytest.raises(MissingBlobsError):
            await client.execute(blobs[-1].digest, [])
        await client.upload(blobs)
        record, _ = await client.execute(blobs[-1].digest, ["a.o"])
        assert record.inline["a.o"] == b"int x;\n"


async def test_a_result_whose_output_is_gone_is_a_miss(farm: FarmUnderTest) -> None:
    async with farm.client() as client:
        data, _ = await run(client, "cp a.c a.o; echo 1 >> a.o")
        name = Digest.of(data).hash
        (farm.directory / "worker/store/acme/cas" / name[:2] / name).unlink()
        with pytest.raises(NotFoundError):
            await client.cached_result(made("cp a.c a.o; echo 1 >> a.o")[-1].digest, ["a.o"])


async def test_a_result_is_not_released_when_its_row_cannot_be_written(
    farm: FarmUnderTest,
) -> None:
    async with farm.client() as client:
        farm.audit.is_broken = True
        with pytest.raises(InfrastructureError) as caught:
            await run(client, "cp a.c a.o")
        assert caught.value.reason == "audit"
        with pytest.raises(NotFoundError):
            await client.cached_result(made("cp a.c a.o")[-1].digest, [])
        farm.audit.is_broken = False
        await run(client, "cp a.c a.o")
        farm.audit.is_broken = True
        with pytest.raises(InfrastructureError):
            await client.cached_result(made("cp a.c a.o")[-1].digest, [])


async def test_a_tenant_whose_rows_fill_the_trail_gets_neither_a_hit_nor_a_compile(
    farm: FarmUnderTest,
) -> None:
    async with farm.client() as client:
        await run(client, "cp a.c a.o")
        known, rows = made("cp a.c a.o")[-1].digest, len(farm.audit.rows)
        farm.audit.crowded = {TENANT.value}
        for attack in (client.cached_result(known, []), run(client, "cp a.c a.o; echo 2")):
            with pytest.raises(InfrastructureError) as caught:
                await attack
            assert caught.value.reason == "audit-share"
        farm.audit.crowded = {"other"}
        # A hit costs a call. It may not use up what compiles that run need for their rows.
        farm.audit.is_full = True
        with pytest.raises(InfrastructureError) as caught:
            await client.cached_result(known, [])
        assert (caught.value.reason, len(farm.audit.rows)) == ("audit-full", rows)
        farm.audit.is_full = False
        await client.cached_result(known, [])


async def test_equal_actions_at_once_run_once(farm: FarmUnderTest, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    script = f"echo run >> {mark}; sleep 0.5; cp a.c a.o"
    async with farm.client() as one, farm.client() as two:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(client, script)) for client in (one, two)]
        assert [t.result()[0] for t in tasks] == [b"int x;\n"] * 2
    assert mark.read_text() == "run\n"
    assert [r.cache_status for r in farm.audit.rows] == ["executed", "joined"]


async def test_one_of_two_waiters_leaving_does_not_kill_the_other(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    mark = tmp_path / "runs"
    script = f"echo run >> {mark}; sleep 0.6; cp a.c a.o"
    async with farm.client() as one, farm.client() as two:
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(run(one, script))
            staying = group.create_task(run(two, script))
            await asyncio.sleep(0.3)
            leaving.cancel()
        assert staying.result()[0] == b"int x;\n"
    assert mark.read_text() == "run\n"


async def test_the_last_waiters_leaving_kills_the_compile(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    mark = tmp_path / "alive"
    async with farm.client() as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await run(client, f"sleep 1; touch {mark}")
    await asyncio.sleep(1.0)
    assert not mark.exists()
    # The tenant's code ran all the same, so the trail says so.
    assert [(r.cache_status, r.reason, r.exit_code, r.outputs) for r in farm.audit.rows] == [
        ("abandoned", "cancelled", -1, ())
    ]


async def test_a_guest_that_dies_is_reported_and_its_action_quarantined(
    farm: FarmUnderTest,
) -> None:
    farm.runtime.faults.die_in_execs = frozenset({0})
    async with farm.client() as client:
        for _ in range(2):
            with pytest.raises(UnavailableError) as caught:
                await run(client, "cp a.c a.o")
            assert caught.value.reason == "guest-lost"
        with pytest.raises(CallerError) as refused:
            await run(client, "cp a.c a.o")
        assert refused.value.reason == "quarantined"
        farm.runtime.faults.die_in_execs = frozenset()
        assert (await run(client, "cp a.c a.o; true"))[0] == b"int x;\n"
    assert farm.audit.names().count("guest-lost-in-compile") == 2


async def test_a_guest_that_cannot_boot_fails_at_the_first_try(farm: FarmUnderTest) -> None:
    farm.runtime.faults.boot_error = "no VMM"
    async with farm.client() as client, asyncio.timeout(60):
        with pytest.raises(UnavailableError) as caught:
            await run(client, "cp a.c a.o")
    assert caught.value.reason == "guest-boot"
    assert farm.runtime.failed_boots == 1


async def test_a_failed_compile_is_recorded_and_not_cached(farm: FarmUnderTest) -> None:
    async with farm.client() as client:
        blobs = made("exit 4")
        await client.upload(blobs)
        record, _ = await client.execute(blobs[-1].digest, [])
        assert record.exit_code == 4
        with pytest.raises(NotFoundError):
            await client.cached_result(blobs[-1].digest, [])
    assert [r.exit_code for r in farm.audit.rows] == [4]


async def test_a_wrong_secret_gives_no_session_and_no_route(farm: FarmUnderTest) -> None:
    peer = PinnedPeer.from_pem(farm.scheduler.certificate_pem.encode())
    async with open_channel(
        f"127.0.0.1:{farm.scheduler.port}",
        certificate_pem=peer.certificate_pem,
        name=peer.name,
    ) as channel:
        client = SchedulerClient(channel)
        with pytest.raises(UnauthenticatedError):
            await client.authenticate(
                secret="x" * 43, tenant=TENANT, principal="ann", client_version=""
            )
        with pytest.raises(UnauthenticatedError):
            await client.authenticate(
                secret=farm.tenant_secret,
                tenant=TenantId("globex"),
                principal="ann",
                client_version="",
            )
        with pytest.raises(UnauthenticatedError):
            await client.route("no-session", RouteAsk(tenant=TENANT, image=IMAGE))


async def test_a_server_with_another_certificate_is_not_talked_to(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    other = load_or_create_tls(tmp_path / "other", "scheduler.hpcc.internal", clock=farm.clock)
    async with open_channel(
        f"127.0.0.1:{farm.scheduler.port}",
        certificate_pem=other.certificate_pem,
        name="scheduler.hpcc.internal",
    ) as channel:
        with pytest.raises(UnavailableError):
            await SchedulerClient(channel).authenticate(
                secret=farm.tenant_secret, tenant=TENANT, principal="ann", client_version=""
            )


async def test_a_lost_guest_ends_its_route_generation_at_once(farm: FarmUnderTest) -> None:
    async with farm.client() as client:
        await run(client, "cp a.c a.o")
        before = await farm.route()
        farm.runtime.running[0].kill("crashed")
        async with asyncio.timeout(3):
            while (await farm.route()).generation == before.generation:  # noqa: ASYNC110 - asked over the network, which has no event
                await asyncio.sleep(0.05)
    assert "guest-lost" in farm.audit.names()


async def test_results_survive_a_restart_of_the_worker(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm:
        async with farm.serving(), farm.client() as client:
            await run(client, "cp a.c a.o")
        assert farm.runtime.running == []
        async with farm.serving(), farm.client() as client:
            assert await run(client, "cp a.c a.o") == (b"int x;\n", True)
