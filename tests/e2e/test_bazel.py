"""Stock Bazel builds through a gateway over TLS with its user's token; the guests are real."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc_testkit.farm.bazel import bazel, missing_or_none
from hpcc_testkit.farm.machine import HPCC, Machine
from hpcc_testkit.services.authority import IssuedFiles, issue

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@contextmanager
def gateway(machine: Machine) -> Iterator[tuple[int, IssuedFiles]]:
    """Run `hpcc gateway` before the farm of `hpcc up`."""
    farm = json.loads((machine.directory / "state/farm.json").read_text())
    files = issue(machine.root / "tls")
    config = machine.root / "gateway.json"
    config.touch(mode=0o600)
    config.write_text(
        json.dumps(
            {
                "scheduler": farm["scheduler"],
                "scheduler_certificate_pem": farm["scheduler_certificate_pem"],
                "certificate": str(files.certificate),
                "key": str(files.key),
            }
        )
    )
    process = machine.spawn([str(HPCC), "gateway", "--config", str(config)], cwd=machine.root)
    try:
        assert process.stdout is not None
        port = next(
            int(ready["port"])
            for line in process.stdout
            if line.startswith("{") and (ready := json.loads(line)).get("ready")
        )
        yield port, files
    finally:
        process.terminate()
        process.communicate(timeout=60)


def said(done: subprocess.CompletedProcess[str], what: str) -> int:
    """Return how many processes of that kind Bazel reports."""
    found = re.search(rf"(\d+) {what}", done.stderr)
    return int(found.group(1)) if found else 0


def rows(machine: Machine) -> list[dict[str, object]]:
    text = machine.hpcc("audit", "export", "--format", "jsonl").stdout
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_bazel_builds_a_project_in_guests_and_again_from_the_cache(
    machine: Machine, toolchain: str, tmp_path: Path
) -> None:
    lacks = missing_or_none()
    if lacks:
        pytest.fail(lacks)
    machine.hpcc("up", "--image", toolchain)
    with gateway(machine) as (port, files), bazel(tmp_path / "bazel") as client:
        rc = tmp_path / "hpcc.bazelrc"
        machine.hpcc("token", "--bazelrc", str(rc))
        client.use(rc)
        remote = (f"--remote_executor=grpcs://localhost:{port}", f"--tls_certificate={files.ca}")

        first = client.build(*remote)
        assert first.returncode == 0, first.stderr
        # Four units, an archive, a program, a generated header, and the program that is run.
        assert said(first, "remote[,.]") == 8, first.stderr
        assert client.output("report.txt") == b"shape 42 of 4.2\n"
        program = client.output("demo")
        assert program.startswith(b"\x7fELF")
        executed = [r for r in rows(machine) if r["cache_status"] == "executed"]
        assert len(executed) == said(first, "remote[,.]")
        assert {str(r["isolation"]).split("/")[0] for r in executed} <= {"qemu", "firecracker"}
        assert {r["principal"] for r in executed} == {"gateway"}
        assert {str(r["client_version"]).partition(" ")[0] for r in executed} == {"bazel"}

        client.clean()
        again = client.build(*remote)
        assert again.returncode == 0, again.stderr
        assert said(again, "remote cache hit") == len(executed), again.stderr
        assert said(again, "remote[,.]") == 0
        assert client.output("demo") == program
        assert len([r for r in rows(machine) if r["cache_status"] == "executed"]) == len(executed)
