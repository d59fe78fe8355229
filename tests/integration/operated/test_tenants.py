"""`hpcc tenants`: a real scheduler takes over what the command puts into its control store."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.cli.main import main
from hpcc.core import TenantId
from hpcc.identity.tls import PinnedPeer
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import open_schedulers
from hpcc_testkit.suite.pipes import gone

pytestmark = pytest.mark.timeout(120)


def text(*names: str) -> str:
    return "".join(
        f"""
[tenants.{name}]
images = ["sha256:{"ab" * 32}"]
minimum_isolation = "qemu/tcg"
identity = {{issuer = "https://{name}.example", audience = "a", client_ids = ["{name}"]}}
"""
        for name in names
    )


class Operator:
    """Runs the command beside a scheduler's config file."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self._capsys = directory / "scheduler.json", capsys
        self.file = directory / "tenants.toml"
        self.config.touch(mode=0o600)
        self.config.write_text(
            json.dumps({
                "keys": str(directory / "keys"), "state": str(directory / "state"),
                "tenants": "control-store",
            })
        )  # fmt: skip

    def runs(self, *argv: str, content: str | None = None, code: int = 0) -> str:
        """Return what the command prints, on both streams."""
        if content is not None:
            self.file.write_text(content)
        file = [] if argv[0] == "show" else [str(self.file)]
        command = ["tenants", argv[0], *file, *argv[1:], "--config", str(self.config)]
        assert main(command) == code
        said = self._capsys.readouterr()
        return said.out + said.err


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path, capsys)


def test_a_table_is_compared_and_replaced_as_a_whole(operator: Operator) -> None:
    said = operator.runs("diff", content=text("acme"), code=1)
    assert said.startswith("no table is in the control store\n+ tenants.acme\n")
    operator.runs("apply", "--expect", "1", code=2)
    said = operator.runs("apply", "--expect", "0", "--reason", "first")
    assert said.endswith("table 1 is applied: schedulers take it over within seconds\n")
    assert operator.runs("show") == text("acme")
    assert operator.runs("diff").endswith(": first\nno field differs\n")
    assert "table 2" not in operator.runs("apply"), "the same text is no other version"
    said = operator.runs("diff", content=text("acme") + "# a comment\n")
    assert said.endswith("no field differs, only the text does\n")
    said = operator.runs("diff", content=text("acme", "globex").replace("qemu/tcg", "qemu"), code=2)
    assert f"{operator.file}: line 4: [tenants.acme] minimum_isolation: must be one of" in said
    assert "nothing of the table was taken" in said
    assert operator.runs("apply", content="[tenants", code=2).count("\n") == 1
    assert operator.runs("show") == text("acme")
    assert "table 2 is applied" in operator.runs("apply", content=text("acme", "globex"))


def test_a_tenant_is_removed_only_on_purpose(operator: Operator) -> None:
    """A file that lost its end may be a valid table without its last tenants."""
    operator.runs("apply", content=text("acme", "globex"))
    said = operator.runs("apply", content=text("acme"), code=2)
    assert "the new table lacks globex" in said
    assert "--allow-removal" in said
    found = json.loads(operator.runs("diff", "--json", code=1))
    assert found["version"] == 1
    assert found["changes"] == [
        {"kind": "removed", "path": "tenants.globex", "before": "", "after": ""}
    ]
    found = json.loads(operator.runs("apply", "--json", "--allow-removal"))
    assert (found["version"], found["applied"], found["removed"]) == (2, True, ["globex"])


def test_a_table_comes_from_standard_input_and_a_file_of_the_config_is_named(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(operator.config.read_text()) | {"tenants": "/etc/hpcc/tenants.toml"}
    operator.config.write_text(json.dumps(config))
    stdin = SimpleNamespace(buffer=io.BytesIO(text("acme").encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    operator.file = Path("-")
    said = operator.runs("apply")
    assert (
        'reads /etc/hpcc/tenants.toml: it uses the table of the control store with "tenants":'
        in said
    )
    assert operator.runs("show") == text("acme")


@asynccontextmanager
async def scheduler(config: Path) -> AsyncIterator[SchedulerClient]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc.scheduler", "--config", str(config),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        ready = json.loads(await process.stdout.readline())
        peer = PinnedPeer.from_pem(ready["certificate_pem"].encode())
        async with open_schedulers(
            f"127.0.0.1:{ready['port']}", certificate_pem=peer.certificate_pem, name=peer.name
        ) as channels:
            yield SchedulerClient(channels)
    finally:
        process.stdin.close()
        assert await gone(process) == 0


async def refusal(client: SchedulerClient, tenant: str) -> str:
    """Return why a login with nonsense is refused, which needs no identity provider."""
    with pytest.raises(UnauthenticatedError) as refused:
        await client.authenticate(
            secret="a.b.c", tenant=TenantId(tenant), principal="ann", client_version="t"
        )
    return refused.value.reason


async def test_a_scheduler_takes_a_table_over_without_a_restart(operator: Operator) -> None:
    async with scheduler(operator.config) as client:
        assert await refusal(client, "acme") == "unknown-tenant"
        await asyncio.to_thread(operator.runs, "apply", content=text("acme"))
        while await refusal(client, "acme") == "unknown-tenant":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
        assert await refusal(client, "globex") == "unknown-tenant"
        await asyncio.to_thread(
            operator.runs, "apply", "--allow-removal", content=text("globex")
        )  # fmt: skip
        while await refusal(client, "globex") == "unknown-tenant":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
        assert await refusal(client, "acme") == "unknown-tenant"
    async with scheduler(operator.config) as client:
        assert await refusal(client, "globex") == "idp-token-malformed"
    segments = (operator.config.parent / "state/events").rglob("*")
    # Without the index beside them.
    found = b"".join(p.read_bytes() for p in segments if p.is_file() and "sqlite" not in p.name)
    assert found.count(b'"tenants-in-force"') == 3
