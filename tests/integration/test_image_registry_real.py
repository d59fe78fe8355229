"""A real docker-registry on loopback, filled by skopeo."""

import asyncio
import contextlib
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpcc.core import ImageRef, IntegrityError
from hpcc.images.oci.registry import OciRegistry
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock
from hpcc_testkit.guests.images import Item, make_image, tar_bytes
from hpcc_testkit.suite.pipes import gone

pytestmark = [
    pytest.mark.skipif(
        not all(map(shutil.which, ("docker-registry", "skopeo", "mkfs.erofs"))),
        reason="docker-registry, skopeo or erofs-utils is not installed",
    ),
    pytest.mark.timeout(120),
]
CONFIG = """version: 0.1
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
log:
  level: error
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


@contextlib.asynccontextmanager
async def real_registry(directory: Path) -> AsyncIterator[int]:
    port = free_port()
    config = directory / "registry.yml"
    config.write_text(CONFIG.format(root=directory / "storage", port=port))
    process = await asyncio.create_subprocess_exec(
        "docker-registry",
        "serve",
        str(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        await gone(process)


async def test_pull_from_a_real_registry_and_refuse_what_its_disk_corrupted(
    tmp_path: Path,
) -> None:
    image = make_image(
        [tar_bytes([Item("bin/cc", text="1" * 5000)]), tar_bytes([Item("bin/.wh.cc"), Item("b")])]
    )
    layout = image.write_layout(tmp_path / "layout", name="latest")
    async with real_registry(tmp_path) as port:
        target = f"docker://127.0.0.1:{port}/tool/chain:1"
        await run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:latest", target)
        ref = await OciRegistry().pin(f"127.0.0.1:{port}/tool/chain", "1")
        assert ref == ImageRef(f"127.0.0.1:{port}/tool/chain", image.digest)

        store = ImageStore(tmp_path / "one", SystemClock())
        made = await store.prepare(ref, OciRegistry())
        assert dict(made.counts)["files"] == 1

        name = image.layer_digests[0].removeprefix("sha256:")
        blob = next((tmp_path / "storage").rglob(f"{name}/data"))
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 0xFF
        blob.write_bytes(data)
        with pytest.raises(IntegrityError) as caught:
            await ImageStore(tmp_path / "two", SystemClock()).prepare(ref, OciRegistry())
        assert caught.value.reason == "digest-mismatch"
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert name in str(caught.value)
        assert [p for p in (tmp_path / "two").rglob("*") if p.suffix in {".erofs", ".part"}] == []

        # What was prepared before stays good.
        assert store.get(image.digest) == made
