"""The two in-toto statements of a release: its SLSA provenance v1, and its bill of materials.

The type of the build, `urn:hpcc:build:release:v1`, is described in docs/adr/0072. A build that a
person started names the builder `urn:hpcc:builder:by-hand`: a reader then trusts that person.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final

from release.bom import PREDICATE as BOM_PREDICATE
from release.lock import Package

TYPE: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:hpcc:build:release:v1"
BY_HAND: Final = "urn:hpcc:builder:by-hand"
LOCKS: Final = ("requirements.lock", "requirements-dev.lock")


def digest(content: bytes) -> dict[str, str]:
    """Return the digest set of these bytes."""
    return {"sha256": hashlib.sha256(content).hexdigest()}


def subjects(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the files as subjects, by name."""
    ordered = sorted(files, key=lambda file: file.name)
    return [{"name": file.name, "digest": digest(file.read_bytes())} for file in ordered]


def builder(env: Mapping[str, str] = os.environ) -> str:
    """Return the builder's id: RELEASE_BUILDER, the workflow that runs, or `by hand`."""
    if named := env.get("RELEASE_BUILDER"):
        return named
    if "GITHUB_WORKFLOW_REF" in env:
        return f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_WORKFLOW_REF']}"
    return BY_HAND


def toolchain() -> dict[str, str]:
    """Return what the bytes depend on besides the commit: interpreter, back-end, other programs."""
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "hatchling": installed_version("hatchling"),
    }
    for name in ("musl-gcc", "cc", "gcc", "dpkg-deb", "rpmbuild"):
        if program := shutil.which(name):
            done = subprocess.run([program, "--version"], capture_output=True, check=False)
            found[name] = done.stdout.decode(errors="replace").partition("\n")[0]
    return found


def materials(commit: str, locks: Mapping[str, bytes], packages: Sequence[Package]) -> list[Any]:
    """Return what went into the build: the commit, the lock files, each locked package."""
    source = {"uri": "git+hpcc", "digest": {"gitCommit": commit}}
    files = [{"uri": f"file:{name}", "digest": digest(locks[name])} for name in LOCKS]
    pins = [
        {"uri": package.purl, "annotations": {"sha256": package.digests}} for package in packages
    ]
    return [source, *files, *pins]


def provenance(
    files: Sequence[Path],
    commit: str,
    version: str,
    locks: Mapping[str, bytes],
    packages: Sequence[Package],
) -> dict[str, Any]:
    """Return the statement of how these files were built."""
    return {
        "_type": TYPE,
        "subject": subjects(files),
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"commit": commit, "version": version},
                "internalParameters": {"toolchain": toolchain()},
                "resolvedDependencies": materials(commit, locks, packages),
            },
            "runDetails": {"builder": {"id": builder()}},
        },
    }


def contents(files: Sequence[Path], bom: object) -> dict[str, Any]:
    """Return the statement of what is in these files."""
    return {
        "_type": TYPE,
        "subject": subjects(files),
        "predicateType": BOM_PREDICATE,
        "predicate": bom,
    }
