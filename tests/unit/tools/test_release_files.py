"""The bill of materials and the provenance statement of a release."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import provenance
import sbom

ROOT = sbom.ROOT

LOCK = f"""# written by a tool
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via cryptography
cryptography==50.0.2 \\
    --hash=sha256:{"c" * 64}
    # via
    #   hpcc (pyproject.toml)
    #   pyjwt
pyjwt==2.15.1 \\
    --hash=sha256:{"d" * 64}
    # via hpcc (pyproject.toml)
"""
ENV = {
    "GITHUB_SERVER_URL": "https://example.invalid",
    "GITHUB_REPOSITORY": "o/hpcc",
    "GITHUB_SHA": "0" * 40,
    "GITHUB_REF": "refs/tags/v1",
    "GITHUB_WORKFLOW_REF": "o/hpcc/.github/workflows/release.yml@refs/tags/v1",
    "GITHUB_RUN_ID": "7",
    "GITHUB_RUN_ATTEMPT": "1",
}


def test_a_component_has_the_version_digests_and_marker_of_the_lock_file() -> None:
    first = sbom.document("1.0", LOCK)["components"][0]
    assert (first["purl"], first["version"]) == ("pkg:pypi/cffi@2.1.1", "2.1.1")
    assert [p["value"] for p in first["properties"]] == [
        "a" * 64,
        "b" * 64,
        "platform_python_implementation != 'PyPy'",
    ]


def test_dependencies_are_those_that_the_lock_file_gives_as_reasons() -> None:
    needs = {d["ref"]: d["dependsOn"] for d in sbom.document("1.0", LOCK)["dependencies"]}
    assert needs == {
        "pkg:pypi/hpcc@1.0": ["pkg:pypi/cryptography@50.0.2", "pkg:pypi/pyjwt@2.15.1"],
        "pkg:pypi/pyjwt@2.15.1": ["pkg:pypi/cryptography@50.0.2"],
        "pkg:pypi/cryptography@50.0.2": ["pkg:pypi/cffi@2.1.1"],
        "pkg:pypi/cffi@2.1.1": [],
    }


def test_the_same_lock_file_gives_the_same_document_and_another_gives_another_serial() -> None:
    assert sbom.document("1.0", LOCK) == sbom.document("1.0", LOCK)
    other = sbom.document("1.0", LOCK.replace("2.15.1", "2.15.2"))
    assert other["serialNumber"] != sbom.document("1.0", LOCK)["serialNumber"]


@pytest.mark.parametrize("line", ["cffi>=2 \\", "-e .", "cffi==1 \\\ncffi2==1 \\"])
def test_a_lock_file_with_an_unpinned_package_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|no digest"):
        sbom.read_lock(LOCK + line + "\n")


def test_the_real_lock_file_is_read_whole() -> None:
    text = (ROOT / "requirements.lock").read_text()
    names = [package["name"] for package in sbom.read_lock(text)]
    assert len(names) == sum(line[:1].isalnum() for line in text.splitlines())
    assert {"grpcio", "cryptography", "zstandard"} <= set(names)
    needed = {ref for d in sbom.document("1.0", text)["dependencies"] for ref in d["dependsOn"]}
    assert len(needed) == len(names)


def test_a_statement_names_each_file_by_its_digest_and_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "hpcc-1.0.whl"
    wheel.write_bytes(b"wheel")
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    assert provenance.main([str(tmp_path / "out.json"), str(wheel)]) == 0
    made = json.loads((tmp_path / "out.json").read_text())
    digest = hashlib.sha256(b"wheel").hexdigest()
    assert made["subject"] == [{"name": "hpcc-1.0.whl", "digest": {"sha256": digest}}]
    source, *locks = made["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": "0" * 40}
    assert [lock["uri"] for lock in locks] == [
        "file:requirements.lock",
        "file:requirements-dev.lock",
    ]


def test_no_statement_is_made_outside_of_a_workflow() -> None:
    with pytest.raises(KeyError):
        provenance.statement([], {})
