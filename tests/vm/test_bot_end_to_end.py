"""A process `hpcc worker` as the bot of a real BuildGrid: a C file is compiled in a real guest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import HpccError, ImageRef
from hpcc.rpc.reapi.foreign_service import ServiceConfig, connect_service
from hpcc_testkit.engine.bots import action_of
from hpcc_testkit.engine.buildgrid import INSTANCE, Server, engine, missing_or_none
from hpcc_testkit.farm.bazel import bazel
from hpcc_testkit.farm.bazel import missing_or_none as no_bazel
from hpcc_testkit.farm.machine import HPCC
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

SOURCE: Final = b'#include <stdio.h>\n#include "w.h"\nint main(void) { return puts(WORD) < 0; }\n'
FILES: Final = [("src/a.c", SOURCE), ("inc/w.h", b'#define WORD "from an engine"\n')]
COMPILE: Final = "gcc -c src/a.c -o a.o -Iinc && tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"
READY_SECONDS: Final = 300.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with engine(tmp_path_factory.mktemp("engine")) as (running,):
        yield running


class Worker:
    """A worker's process and its files."""

    def __init__(self, process: subprocess.Popen[str], base: Path, config: Path) -> None:
        self.process, self.base, self.config = process, base, config

    def rows(self) -> list[dict[str, object]]:
        """Verify the trail, and return its rows."""
        where = ("--directory", str(self.base / "audit"))
        subprocess.run([HPCC, "audit", "verify", *where], check=True, capture_output=True)
        command = [HPCC, "audit", "export", "--format", "jsonl", *where]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def worker(
    base: Path, server: Server, toolchain: str, shared_cache: Path, **fields: object
) -> Iterator[Worker]:
    """Run a worker until the block ends, then in an orderly way, unless the block killed it."""
    base.mkdir(exist_ok=True)
    image, config = ImageRef.parse(toolchain), base / "worker.json"
    names = ("keys", "store", "audit", "state")
    section = {
        "endpoint": server.endpoint, "instance": INSTANCE, "tenant": "acme",
        "images": [image.platform_value],
    }  # fmt: skip
    table = {
        "worker_id": base.name, **{n: str(base / n) for n in names},
        "images": str(shared_cache / "images"), "guest_assets": str(shared_cache / "guest"),
        "image_digests": [image.digest.value], "guest_memory_mib": 640, "max_guests": 1,
        "engine": section, **fields,
    }  # fmt: skip
    config.touch(mode=0o600)
    config.write_text(json.dumps(table))
    with (base / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hpcc.worker", "--config", str(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "worker_id" in json.loads(line):
                break
        else:
            raise AssertionError((base / "log").read_text())
        yield Worker(process, base, config)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (base / "log").read_text()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["process", pytest.param("qemu", marks=pytest.mark.nightly)])
def backend(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return the settings of a backend that works here without KVM."""
    if request.param == "qemu":
        return {"runtime": "qemu", "accelerator": "tcg"}
    containerd: ContainerdDaemon = request.getfixturevalue("containerd")
    return {"runtime": "process", "containerd": str(containerd.socket)}


async def compiled(server: Server, image: ImageRef, note: str) -> pb.ActionResult:
    """Compile `SOURCE` through the engine, with `note` in the command."""
    blobs = action_of(
        f"{COMPILE} # {note}", files=FILES, properties=[("container-image", image.platform_value)],
        seconds=120,
    )  # fmt: skip
    config = ServiceConfig(endpoint=server.endpoint, instance=INSTANCE)
    async with connect_service(config) as client:
        await client.upload(blobs)
        data, is_cached = await client.run(blobs[-1].digest, [])
        assert not is_cached
        result = pb.ActionResult.FromString(data)
        assert result.exit_code == 0, result.stderr_raw
        (output,) = result.output_files
        assert output.path == "a.o"
        return result


async def test_a_stock_client_compiles_in_a_guest_of_a_worker_through_the_engine(
    tmp_path: Path,
    server: Server,
    toolchain: str,
    shared_cache: Path,
    backend: dict[str, object],
) -> None:
    image = ImageRef.parse(toolchain)
    with worker(tmp_path / "b1", server, toolchain, shared_cache, **backend) as running:
        result = await compiled(server, image, str(tmp_path))
    assert result.stdout_raw in {b"", b"lo\n"}, "a guest has no network"
    assert result.execution_metadata.worker == "b1"
    (row,) = running.rows()
    kind = "process/runc" if backend["runtime"] == "process" else "qemu/tcg"
    assert (row["isolation"], row["reuse"], row["cache_status"]) == (kind, "exec", "executed")
    assert (row["tenant"], row["principal"]) == ("acme", f"engine:{INSTANCE}")
    assert row["engine"] == f"{server.endpoint}/{INSTANCE}"
    assert str(row["lease"]).startswith(f"{INSTANCE}/")
    assert row["image_digest"] == image.digest.value
    assert str(row["agent_digest"]).startswith("sha256:")
    digest = result.output_files[0].digest
    assert row["outputs"] == [["a.o", f"{digest.hash}/{digest.size_bytes}"]]


@pytest.mark.nightly
async def test_the_lease_of_a_killed_worker_is_given_out_again(
    tmp_path: Path,
    server: Server,
    toolchain: str,
    shared_cache: Path,
    containerd: ContainerdDaemon,
) -> None:
    image, go = ImageRef.parse(toolchain), "sleep 600"
    fields = {"runtime": "process", "containerd": str(containerd.socket)}
    blobs = action_of(
        f"[ -e /src/go ] || {go}; : {tmp_path}", outputs=(), seconds=300,
        properties=[("container-image", image.platform_value)],
    )  # fmt: skip
    config = ServiceConfig(endpoint=server.endpoint, instance=INSTANCE)
    async with connect_service(config) as client, asyncio.TaskGroup() as group:
        await client.upload(blobs)
        with worker(tmp_path / "b1", server, toolchain, shared_cache, **fields) as one:
            build = group.create_task(_error_of(client.run(blobs[-1].digest, [])))
            await asyncio.to_thread(_wait_for, "sleep 600")
            os.kill(one.process.pid, signal.SIGKILL)
            one.process.wait()
        # Started again; it sweeps what was left, and gets the lease anew.
        with worker(
            tmp_path / "b1", server, toolchain, shared_cache, max_wall_seconds=1.0, **fields
        ) as two:
            assert "ran out of time" in await build
    assert [r["reason"] for r in two.rows()] == ["deadline"]


async def _error_of(build: Awaitable[object]) -> str:
    """Wait for a build that fails, and return why."""
    try:
        await build
    except HpccError as error:
        return str(error)
    return ""


def _wait_for(words: str) -> None:
    """Wait until a process whose command line ends with these words runs."""
    wanted, deadline = words.replace(" ", "\0").encode(), time.monotonic() + 60
    while time.monotonic() < deadline:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cmdline").read_bytes().rstrip(b"\0").endswith(wanted):
                        return
                except OSError:
                    continue
        time.sleep(0.05)
    raise AssertionError(f"no process {words!r}")


@pytest.mark.nightly
def test_bazel_builds_through_the_engine_in_guests(
    tmp_path: Path,
    server: Server,
    toolchain: str,
    shared_cache: Path,
    containerd: ContainerdDaemon,
) -> None:
    if missing := no_bazel():
        pytest.skip(missing)
    fields = {"runtime": "process", "containerd": str(containerd.socket), "max_guests": 2}
    image = ImageRef.parse(toolchain)
    with (
        worker(tmp_path / "b1", server, toolchain, shared_cache, **fields) as running,
        bazel(tmp_path / "client") as client,
    ):
        done = client.build(
            f"--remote_executor={server.endpoint}",
            f"--remote_instance_name={INSTANCE}",
            f"--remote_default_exec_properties=container-image={image.platform_value}",
        )
        assert done.returncode == 0, done.stderr
        assert " remote" in done.stderr
    rows = running.rows()
    assert len(rows) >= 3
    assert {(r["cache_status"], r["isolation"]) for r in rows} == {("executed", "process/runc")}
