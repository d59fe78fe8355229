"""Several principals of a tenant wait for one compile: each gets a row, each may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops
from google.protobuf.empty_pb2 import Empty

from hpcc.core import Blob, Digest, InputFile
from hpcc.identity.tls import PinnedPeer
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.tree import build_tree
from hpcc.rpc.base.channel import open_channel
from hpcc_testkit.farm.in_process import IMAGE, FarmUnderTest, farm_under_test

EXECUTION = "/build.bazel.remote.execution.v2.Execution"


@dataclass(frozen=True, slots=True)
class Member:
    """A principal with a separate channel to the worker."""

    channel: grpc.aio.Channel
    token: str

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)

    def _stream(self, method: str, request: Any) -> Any:
        return self.channel.unary_stream(
            f"{EXECUTION}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=ops.Operation.FromString,
        )(request, metadata=self._metadata())

    async def execute(self, action: Digest) -> tuple[Any, str]:
        """Return a waiting call and its operation's name."""
        call = self._stream(
            "Execute",
            pb.ExecuteRequest(instance_name="acme", action_digest=digest_to_proto(action)),
        )
        return call, (await call.read()).name

    async def wait(self, name: str) -> Any:
        call = self._stream("WaitExecution", pb.WaitExecutionRequest(name=name))
        assert (await call.read()).name == name
        return call

    async def cancel(self, name: str) -> None:
        await self.channel.unary_unary(
            "/google.longrunning.Operations/CancelOperation",
            request_serializer=ops.CancelOperationRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )(ops.CancelOperationRequest(name=name), metadata=self._metadata())


async def end_of(call: Any) -> pb.ExecuteResponse:
    operation = await call.read()
    assert operation.done
    answer = pb.ExecuteResponse()
    assert operation.response.Unpack(answer)
    return answer


@asynccontextmanager
async def member(farm: FarmUnderTest, principal: str) -> AsyncGenerator[Member]:
    route = await farm.route(principal)
    peer = PinnedPeer.from_der(route.worker_certificate)
    async with open_channel(
        route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        yield Member(channel, route.token)


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    # A single-use guest has run no other code, so all members of the tenant get its results.
    async with (
        asyncio.timeout(60),
        farm_under_test(tmp_path, guest_reuse="exec") as farm,
        farm.serving(),
    ):
        yield farm


async def gated(
    farm: FarmUnderTest, gate: Path, end: str = "cp a.c a.o", *, do_not_cache: bool = False
) -> Digest:
    """Upload an action that ends when the gate file exists; return its digest."""
    source = Blob.of(b"int x;\n")
    tree = build_tree([InputFile("a.c", source.digest)])
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; {end}"
    command = Blob.of(
        encode_command(
            CommandSpec(
                argv=("sh", "-c", script),
                env=(("PATH", "/usr/bin:/bin"),),
                cwd="",
                outputs=("a.o",),
                image=IMAGE,
            )
        )
    )
    action = Blob.of(
        encode_action(
            ActionSpec(
                command=command.digest,
                input_root=tree.root,
                image=IMAGE,
                salt=b"t",
                do_not_cache=do_not_cache,
            )
        )
    )
    directories = [Blob.of(d) for d in tree.directories.values()]
    async with farm.client() as client:
        await client.upload([source, *directories, command, action])
    return action.digest


async def test_whoever_joins_a_running_compile_gets_a_row_of_its_own(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    action = await gated(farm, gate)
    async with member(farm, "ann") as ann, member(farm, "bob") as bob, member(farm, "cid") as cid:
        first, name = await ann.execute(action)
        second, joined = await bob.execute(action)
        third = await cid.wait(name)
        assert joined == name
        gate.touch()
        answers = [await end_of(call) for call in (first, second, third)]
    assert {a.result.output_files[0].digest.hash for a in answers} == {Digest.of(b"int x;\n").hash}
    rows = farm.audit.rows
    assert [(r.cache_status, r.principal) for r in rows[:1]] == [("executed", "ann")]
    assert {(r.cache_status, r.principal) for r in rows[1:]} == {
        ("joined", "bob"),
        ("joined", "cid"),
    }
    assert len(rows) == 3
    assert len({r.row_id for r in rows}) == 3
    # What ran it is the same, and said in each.
    origins = {
        (r.guest_id, r.guest_execs_before, r.isolation, r.reuse, r.argv, r.outputs, r.action_digest)
        for r in rows
    }
    assert len(origins) == 1
    assert rows[0].guest_id


async def test_a_joined_failure_of_the_compiler_has_a_row_too(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    action = await gated(farm, gate, "exit 3")
    async with member(farm, "ann") as ann, member(farm, "bob") as bob:
        calls = [(await who.execute(action))[0] for who in (ann, bob)]
        gate.touch()
        assert [(await end_of(call)).result.exit_code for call in calls] == [3, 3]
    assert [(r.cache_status, r.principal, r.exit_code) for r in farm.audit.rows] == [
        ("executed", "ann", 3),
        ("joined", "bob", 3),
    ]


async def test_a_joined_result_is_not_released_when_its_row_cannot_be_written(
    farm: FarmUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    action = await gated(farm, gate)
    append = farm.audit.append

    async def breaks(row: Any) -> None:
        await append(row)
        farm.audit.is_broken = True

    monkeypatch.setattr(farm.audit, "append", breaks)
    async with member(farm, "ann") as ann, member(farm, "bob") as bob:
        first, _ = await ann.execute(action)
        second, _ = await bob.execute(action)
        gate.touch()
        assert (await end_of(first)).result.output_files
        with pytest.raises(grpc.aio.AioRpcError):
            await second.read()


async def test_a_cancel_by_name_ends_the_callers_waiting_and_nobody_elses(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    action = await gated(farm, gate)
    async with member(farm, "ann") as ann, member(farm, "bob") as bob, member(farm, "eve") as eve:
        first, name = await ann.execute(action)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await eve.cancel(name)  # who does not even wait
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        second, _ = await bob.execute(action)
        third = await eve.wait(name)
        await eve.cancel(name)
        await ann.cancel(name)  # who started it
        for call in (third, first):
            assert (await end_of(call)).status.code != 0
        gate.touch()
        assert (await end_of(second)).result.output_files
    assert [(r.cache_status, r.principal) for r in farm.audit.rows] == [
        ("executed", "ann"),
        ("joined", "bob"),
    ]


async def test_a_cancel_by_the_last_who_waits_ends_the_compile(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    action = await gated(farm, tmp_path / "never")
    async with member(farm, "ann") as ann:
        call, name = await ann.execute(action)
        while not farm.runtime.running:  # noqa: ASYNC110 - the guest has no event for it
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await ann.cancel(name)
        assert (await end_of(call)).status.code != 0
        assert [(r.cache_status, r.reason) for r in farm.audit.rows] == [("abandoned", "cancelled")]


async def test_what_must_not_be_cached_is_not_joined_either(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    action = await gated(farm, gate, do_not_cache=True)
    async with member(farm, "ann") as ann, member(farm, "bob") as bob:
        first, one = await ann.execute(action)
        second, other = await bob.execute(action)
        assert one != other
        gate.touch()
        for call in (first, second):
            assert (await end_of(call)).result.exit_code == 0
    assert [r.cache_status for r in farm.audit.rows] == ["executed", "executed"]
