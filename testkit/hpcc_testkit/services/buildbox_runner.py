"""The program that buildbox-casd starts for each action: stages inputs, runs, stores outputs.

Only for tests, because it isolates nothing. It takes the options of `buildbox-run`: `--action` and
`--action-result`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import Blob, Digest
from hpcc.reapi.digests import digest_from_proto, digest_to_proto
from hpcc.reapi.tree import TreeWalk
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import ServiceConfig, connect_service


async def _stage(client: ReapiClient, root: Digest, directory: Path) -> None:
    walk = TreeWalk(root)
    while wanted := walk.wanted:
        found = await client.download(wanted)
        for digest in wanted:
            walk.feed(digest, found[digest].data)
    blobs = await client.download({f.digest for f in walk.files if f.digest.size_bytes})
    for file in walk.files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blobs[file.digest].data if file.digest.size_bytes else b"")
        path.chmod(0o755 if file.is_executable else 0o644)


async def _run(endpoint: str, action: pb.Action, directory: Path) -> pb.ActionResult:
    async with connect_service(ServiceConfig(endpoint=endpoint)) as client:
        named = digest_from_proto(action.command_digest)
        command = pb.Command.FromString((await client.download([named]))[named].data)
        await _stage(client, digest_from_proto(action.input_root_digest), directory)
        cwd = directory / command.working_directory
        paths = [*command.output_paths, *command.output_files]
        for place in (cwd, *((cwd / path).parent for path in paths)):
            place.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this process
            list(command.arguments),
            cwd=cwd,
            env={v.name: v.value for v in command.environment_variables},
            capture_output=True,
            check=False,
        )
        result = pb.ActionResult(exit_code=done.returncode, stdout_raw=done.stdout)
        # A service may return either stream as a blob; this one does so for stderr.
        stderr = Blob.of(done.stderr)
        result.stderr_digest.CopyFrom(digest_to_proto(stderr.digest))
        uploads = [stderr]
        for path in paths:
            file = cwd / path
            if file.is_file():
                blob = Blob.of(file.read_bytes())
                uploads.append(blob)
                result.output_files.add(path=path, digest=digest_to_proto(blob.digest))
        await client.upload(uploads)
    return result


def main(argv: list[str]) -> None:
    """Run one action."""
    options = dict(a.removeprefix("--").split("=", 1) for a in argv if "=" in a)
    action = pb.Action.FromString(Path(options["action"]).read_bytes())
    endpoint = options["remote"].replace("http://", "grpc://")
    with tempfile.TemporaryDirectory() as directory:
        result = asyncio.run(_run(endpoint, action, Path(directory)))
    Path(options["action-result"]).write_bytes(result.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1:])
