"""Build steps as a stock client sends them, for tests of workers and gateways."""

from __future__ import annotations

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops

from hpcc.core import Blob, ImageRef, InputFile
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc_testkit.farm.in_process import IMAGE
from hpcc_testkit.farm.stock_client import StockClient


def made(
    script: str,
    *,
    image: ImageRef | None = IMAGE,
    in_command: ImageRef | None = None,
    directories: tuple[str, ...] = (),
) -> list[Blob]:
    """Return the blobs of an action, the action last."""
    source = Blob.of(b"int x;\n")
    tree = build_tree([InputFile("a.c", source.digest)])
    spec = CommandSpec(
        argv=("sh", "-c", script),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        outputs=("a.o",),
        image=in_command,
    )
    message = pb.Command.FromString(encode_command(spec))
    if directories:
        # Clients of API 2.0 send output files in this field.
        del message.output_paths[:]
        message.output_files.append("a.o")
        message.output_directories.extend(directories)
    command = Blob.of(message.SerializeToString())
    action = Blob.of(
        encode_action(
            ActionSpec(command=command.digest, input_root=tree.root, image=image, salt=b"t")
        )
    )
    return [source, *(Blob.of(d) for d in tree.directories.values()), command, action]


def result_of(operations: list[ops.Operation]) -> pb.ExecuteResponse:
    """Return the response in the last operation."""
    response = pb.ExecuteResponse()
    assert operations[-1].done
    assert operations[-1].response.Unpack(response)
    return response


async def run(client: StockClient, script: str) -> pb.ExecuteResponse:
    """Upload a step and run it."""
    blobs = made(script)
    await client.upload(blobs)
    return result_of(await client.execute(blobs[-1].digest))
