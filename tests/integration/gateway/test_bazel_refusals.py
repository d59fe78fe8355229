"""Real Bazel on a worker and on a gateway with fake guests: what works, and its error messages."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.identity.tls import PinnedPeer
from hpcc_testkit.farm.bazel import Bazel, bazel, missing_or_none
from hpcc_testkit.farm.gateway import GatewayUnderTest, gateway_under_test
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE

pytestmark = pytest.mark.timeout(600)
UNPINNED = "docker://test/gcc:latest"


class Run:
    """Runs builds, each with one address, token, tenant and image."""

    def __init__(self, client: Bazel, directory: Path) -> None:
        self._client, self._directory = client, directory

    async def build(
        self,
        port: int,
        ca_pem: bytes,
        *,
        token: str,
        tenant: str = "acme",
        image: str = IMAGE.platform_value,
        header: str = "",
    ) -> subprocess.CompletedProcess[str]:
        ca = self._directory / f"ca-{port}.pem"
        flags = [
            f"--remote_executor=grpcs://localhost:{port}",
            f"--tls_certificate={ca}",
            f"--remote_instance_name={tenant}",
            f"--remote_header=authorization=Bearer {token}",
            f"--remote_default_exec_properties=container-image={image}",
            "--remote_retries=0",
        ]
        if header:
            flags.append(f"--remote_header=hpcc-image={header}")

        def run() -> subprocess.CompletedProcess[str]:
            ca.write_bytes(ca_pem)
            return self._client.build(*flags)

        return await asyncio.to_thread(run)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bazel]:
    """Yield one server for both tests, because its start takes longer than the tests."""
    lacks = missing_or_none()
    if lacks:
        pytest.fail(lacks)
    with bazel(tmp_path_factory.mktemp("bazel") / "client") as client:
        yield client


@pytest.fixture
async def run(client: Bazel, tmp_path: Path) -> Run:
    await asyncio.to_thread(client.clean)
    return Run(client, tmp_path)


async def direct(gateway: GatewayUnderTest) -> tuple[int, bytes, str]:
    """Return port, certificate and a route token of the worker itself."""
    gateway.farm.tenant_secret = "acme:ann"
    route = await gateway.farm.route()
    pem = PinnedPeer.from_der(route.worker_certificate).certificate_pem
    return int(route.endpoint.rpartition(":")[2]), pem, route.token


async def test_bazel_builds_at_a_worker_itself_and_is_told_what_it_may_not(
    run: Run, tmp_path: Path
) -> None:
    async with gateway_under_test(tmp_path) as gateway, gateway.farm.serving():
        port, pem, token = await direct(gateway)

        def event() -> str:
            return gateway.farm.audit.events[-1].name

        bad = await run.build(port, pem, token="nonsense")
        assert bad.returncode != 0
        assert "UNAUTHENTICATED" in bad.stderr
        assert event() == "token-refused"
        other = await run.build(port, pem, token=token, tenant="globex")
        assert "instance name is not the token's tenant" in other.stderr
        assert event() == "foreign-instance"
        tag = await run.build(port, pem, token=token, image=UNPINNED)
        assert "is not pinned: write repo@sha256" in tag.stderr
        assert event() == "unpinned-image"
        foreign = await run.build(port, pem, token=token, image=OTHER_IMAGE.platform_value)
        assert "the action's image is not the token's" in foreign.stderr
        assert event() == "foreign-image"
        assert gateway.farm.audit.rows == []

        good = await run.build(port, pem, token=token)
        assert good.returncode == 0, good.stderr
        assert {r.cache_status for r in gateway.farm.audit.rows} == {"executed"}


async def test_bazel_is_told_by_a_gateway_what_it_may_not(run: Run, tmp_path: Path) -> None:
    async with gateway_under_test(tmp_path) as gateway, gateway.farm.serving():
        port, pem, token, image = gateway.port, gateway.ca_pem, "acme:ann", str(IMAGE)

        bad = await run.build(port, pem, token="globex:eve", header=image)
        assert bad.returncode != 0
        assert "the token is not of this tenant" in bad.stderr
        other = await run.build(port, pem, token=token, tenant="globex", header=image)
        assert "the token is not of this tenant" in other.stderr
        silent = await run.build(port, pem, token=token)
        assert "which image?" in silent.stderr
        tag = await run.build(port, pem, token=token, image=UNPINNED, header=image)
        assert "is not pinned: write repo@sha256" in tag.stderr
        assert gateway.farm.audit.events[-1].name == "unpinned-image"
        forbidden = image.replace("ab", "ee")
        foreign = await run.build(port, pem, token=token, header=forbidden)
        assert "is not allowed for this tenant" in foreign.stderr
        assert gateway.farm.audit.rows == []

        good = await run.build(port, pem, token=token, header=image)
        assert good.returncode == 0, good.stderr
        assert {r.principal for r in gateway.farm.audit.rows} == {"ann"}
