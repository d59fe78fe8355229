"""docs/reviewers.md names every place that does cryptography, and what units and code say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/hpcc"
PAGE = (ROOT / "docs/reviewers.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILES = [file for file in SOURCE.rglob("*.py") if "_proto" not in file.parts]
MODULES = {"cryptography", "ssl", "jwt", "hmac", "obstore"}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def hashes(text: str) -> set[str]:
    return set(re.findall(r"\bhashlib\.(\w+)\(", text)) - {"sha256", "file_digest"}


def test_each_file_that_does_cryptography_is_in_the_table() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", SECTIONS["Cryptography and FIPS"]))
    real = set()
    for file in FILES:
        text = file.read_text()
        if imported(ast.parse(text)) & MODULES or "grpc.ssl_" in text or hashes(text):
            real.add(str(file.relative_to(SOURCE)))
    assert named == real


def test_no_digest_but_sha256_protects_anything() -> None:
    found = {str(f.relative_to(SOURCE)): hashes(f.read_text()) for f in FILES}
    assert {name: used for name, used in found.items() if used} == {
        "cache/git/commit_files.py": {"sha1"},
        "cache/results/share_check.py": {"md5"},
        "evidence/packages.py": {"md5"},
        "scheduler/routes.py": {"blake2b"},
        "worker/audit/objects.py": {"md5"},
    }
    for name, used in found.items():
        text = (SOURCE / name).read_text()
        assert not used & {"md5", "sha1"} or "usedforsecurity=False" in text
    digests = re.findall(r"file_digest\(\w+, (\S+?)\)", "".join(f.read_text() for f in FILES))
    assert set(digests) == {"'sha256'", '"sha256"'}


@pytest.mark.parametrize("port", ["7443", "7444", "7445", "8443"])
def test_the_ports_are_those_of_the_chart(port: str) -> None:
    assert re.search(rf"\| {port}/tcp \(`\w+`\) \|", SECTIONS["Ports and sockets"])
    assert port in (ROOT / "deploy/helm/hpcc/templates/networkpolicies.yaml").read_text()


def test_the_users_and_capabilities_are_those_of_the_units() -> None:
    processes = SECTIONS["Processes and their rights"]
    units = {f.stem: f.read_text() for f in (ROOT / "deploy/systemd").glob("*.service")}
    for name in ("hpcc-scheduler", "hpcc-gateway"):
        assert f"\nUser={name}\n" in units[name]
        assert "\nCapabilityBoundingSet=\n" in units[name]
        assert f"`{name}`" in processes
    if "\nUser=" not in units["hpcc-worker"]:
        assert "| worker | root | twelve capabilities" in processes
        bounding = re.search(r"^CapabilityBoundingSet=(.+)$", units["hpcc-worker"], re.MULTILINE)
        assert bounding
        assert len(bounding[1].split()) == 12
    for name in ("hpcc-scheduler", "hpcc-gateway", "hpcc-worker"):
        assert {"MemorySwapMax=0", "LimitCORE=0"} <= set(units[name].split("\n"))
