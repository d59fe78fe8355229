"""A worker process enrols with the token of its pod, as the issuer of a cluster signs it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import CallerError
from hpcc.ports import SystemClock
from hpcc.worker.base.identity import read_pod_token
from hpcc_testkit.farm.processes import process_farm
from hpcc_testkit.services.idp_tokens import MintKey, mint
from hpcc_testkit.services.scraped import fetch, scrape

pytestmark = pytest.mark.timeout(180)
KEY = MintKey.make("cluster-1", "RS256")
NAME = "farm-pool-0"
BEARER = "b" * 40


@dataclass(slots=True)
class Cluster:
    """The issuer of a cluster: a discovery document and a key set, over loopback."""

    issuer: str = ""
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        self.asked.append(path)
        said: dict[str, object] = {"keys": [KEY.jwk()]}
        if path == "/.well-known/openid-configuration":
            said = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/openid/v1/jwks"}
        body = json.dumps(said).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    def token(self, pod: str) -> str:
        now = int(SystemClock().now())
        bound = {"namespace": "hpcc", "pod": {"name": pod}, "serviceaccount": {"name": "worker"}}
        return mint(KEY, {
            "iss": self.issuer, "aud": ["hpcc-enrol"], "iat": now, "exp": now + 600,
            "sub": "system:serviceaccount:hpcc:worker", "kubernetes.io": bound,
        })  # fmt: skip


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    said = Cluster()
    server = await asyncio.start_server(said.serve, "127.0.0.1", 0)
    said.issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield said


def mounted(directory: Path, text: str) -> Path:
    """Write a token as the kubelet does: a link to a directory that it replaces."""
    data = directory / "..2026"
    data.mkdir(parents=True)
    (data / "token").touch(mode=0o400)
    (data / "token").chmod(0o600)
    (data / "token").write_text(text)
    (directory / "..data").symlink_to("..2026")
    (directory / "token").symlink_to("..data/token")
    return directory / "token"


async def said(address: str) -> tuple[int, Any]:
    header = {"Authorization": f"Bearer {BEARER}"}
    status, body = await asyncio.to_thread(fetch, address, "/api/v1/scale", "GET", **header)
    return status, json.loads(body) if status == 200 else body


async def test_a_pod_is_a_worker_of_its_pool_without_an_operator(tmp_path: Path) -> None:
    async with cluster() as there:
        file = mounted(tmp_path / "token", there.token(NAME))
        bearer = tmp_path / "scale.token"
        bearer.touch(mode=0o600)
        bearer.write_text(f"{BEARER}\n")
        enrol = {
            "issuer": there.issuer, "audience": "hpcc-enrol",
            "namespace": "hpcc", "service_account": "worker",
        }  # fmt: skip
        pool = {"prefix": "farm-pool-", "max_workers": 3, "enrol": enrol}
        scheduler = {
            "admin": "127.0.0.1:0", "lease_seconds": 1.0, "pools": {"cpu": pool},
            "scale_token_file": str(bearer),
        }  # fmt: skip
        async with process_farm(
            tmp_path, scheduler=scheduler, worker_id=NAME,
            enrol_token_file="", enrol_pod_token_file=str(file),
        ) as farm:  # fmt: skip
            assert await farm.compiled(["a"]) == [False]
            assert there.asked == ["/.well-known/openid-configuration", "/openid/v1/jwks"]
            assert "enrolled  pool cpu" in await farm.hpcc("scheduler", "workers")
            address = farm.ready["admin"]
            assert (await asyncio.to_thread(fetch, address, "/api/v1/scale"))[0] == 401
            while (await said(address))[0] != 200:  # noqa: ASYNC110 - another process settles
                await asyncio.sleep(0.1)
            _, found = await said(address)
            slots = found["slots"]
            assert slots > 0
            assert found["pools"]["cpu"] == {
                "ready_workers": 1, "slots": slots, "demand_slots": 0, "recommended_workers": 1,
            }  # fmt: skip
            figures = await asyncio.to_thread(scrape, address)
            assert figures.value("hpcc_scheduler_pool_ready_workers", pool="cpu") == 1
            assert figures.value("hpcc_scheduler_pool_recommended_workers", pool="cpu") == 1
            await farm.hpcc("scheduler", "forget-worker", NAME, code=2)
            await farm.hpcc("scheduler", "revoke-worker", NAME)
            await farm.hpcc("scheduler", "forget-worker", NAME)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("t" * 7000, 0o600, "does not hold a pod's token"),
        ("", 0o600, "does not hold a pod's token"),
        ("token", 0o644, "defaultMode: 0400"),
    ],
)
def test_a_file_that_is_no_token_of_a_pod_is_refused(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    file = mounted(tmp_path / "token", text)
    file.resolve().chmod(mode)
    with pytest.raises(CallerError, match=said):
        read_pod_token(file)
    with pytest.raises(CallerError, match="cannot read"):
        read_pod_token(tmp_path / "none")
