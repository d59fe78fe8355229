"""Foreign tools check what an evidence file has."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hpcc_testkit.evidence.made import (
    MadeEvidence,
    guest_row,
    library,
    made_evidence,
    trail_of,
)
from hpcc_testkit.evidence.tools import cosign_accepts, cosign_or_none, openssl_accepts

OBJECTS = {f"object-with-a-long-name-{n}.o": b"object %d\n" % n for n in range(3)}
VSA = "https://slsa.dev/verification_summary/v1"


@pytest.fixture
async def made(tmp_path: Path) -> MadeEvidence:
    rows = [guest_row(n, {name: data}) for n, (name, data) in enumerate(OBJECTS.items())]
    trail = await trail_of(tmp_path / "trail", rows)
    for name, data in {"libm.a": library(OBJECTS), **OBJECTS}.items():
        (tmp_path / name).write_bytes(data)
    found = made_evidence(tmp_path / "libm.a", [trail])
    (tmp_path / "e.zip").write_bytes(found.data)
    for name, data in found.files.items():
        (tmp_path / name).write_bytes(data)
    return found


@pytest.mark.skipif(cosign_or_none() is None, reason="no cosign: tools/bootstrap.sh cosign")
def test_cosign_accepts_each_statement_about_its_object_and_no_other(
    made: MadeEvidence, tmp_path: Path
) -> None:
    key, one = tmp_path / "maker.pem", tmp_path / "one"
    lines = made.files["objects.intoto.jsonl"].splitlines()
    assert len(lines) == len(OBJECTS)
    for line, name in zip(lines, OBJECTS, strict=True):
        one.write_bytes(line)
        accepted = [n for n in OBJECTS if cosign_accepts(one, key, "slsaprovenance1", tmp_path / n)]
        assert accepted == [name]
    assert cosign_accepts(tmp_path / "link.dsse.json", key, "slsaprovenance1", tmp_path / "libm.a")
    assert cosign_accepts(tmp_path / "vsa.dsse.json", key, VSA, tmp_path / "libm.a")
    table = json.loads(lines[0])
    payload = base64.b64decode(table["payload"]).replace(b"qemu/tcg", b"firecracker/kvm")
    table["payload"] = base64.b64encode(payload).decode()
    one.write_text(json.dumps(table))
    assert not cosign_accepts(one, key, "slsaprovenance1", tmp_path / next(iter(OBJECTS)))
    worker = tmp_path / "worker.w1.pem"
    one.write_bytes(lines[0])
    assert not cosign_accepts(one, worker, "slsaprovenance1", tmp_path / next(iter(OBJECTS)))


def test_openssl_accepts_the_workers_signature_of_each_row(
    made: MadeEvidence, tmp_path: Path
) -> None:
    for line in made.files["records.dsse.jsonl"].splitlines():
        table = json.loads(line)
        kind, payload = table["payloadType"].encode(), base64.b64decode(table["payload"])
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = base64.b64decode(table["signatures"][0]["sig"])
        assert openssl_accepts(message, signature, tmp_path / "worker.w1.pem", tmp_path)
        assert not openssl_accepts(message, signature, tmp_path / "maker.pem", tmp_path)
        assert not openssl_accepts(message + b" ", signature, tmp_path / "worker.w1.pem", tmp_path)


def test_the_commands_of_the_readme_work(made: MadeEvidence, tmp_path: Path) -> None:
    text = made.files["README.txt"].decode().replace("\\\n", " ")
    commands = []
    for line in text.splitlines():
        command = line.partition("   ")[0] if not line.startswith("  ") else line.strip()
        command = command.split("    ")[0]
        if command.startswith(("unzip", "jq", "sed", "T=", "(printf", "openssl")):
            commands.append(command)
    assert len(commands) == 10
    script = "set -e -o pipefail\n" + "\n".join(commands)
    for old, new in (("THIS.zip", "e.zip"), ("FILE", "libm.a"), ("NAME", "w1")):
        script = script.replace(old, new)
    script = script.replace("unzip e.zip", "unzip -qo e.zip")
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
    )
    assert hashlib.sha256(library(OBJECTS)).hexdigest() in done.stdout
    assert "Signature Verified Successfully" in done.stdout
    assert "c2sp.org/tlog-proof@v1" in done.stdout


def test_the_bill_of_materials_is_cyclonedx(made: MadeEvidence) -> None:
    text = made.files["sbom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    names = {c["name"] for c in json.loads(text)["components"]}
    assert names == {*OBJECTS, "toolchain image"}
