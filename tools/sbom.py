"""Writes the release's bill of materials (CycloneDX 1.6, JSON) from requirements.lock.

    sbom.py VERSION OUTPUT

The same lock file gives the same bytes: the document holds no time, and its serial number is
derived from the content. Each component has the digests that pip accepts for it, and its marker, as
properties.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; (.+?))? \\$")
_HASH = re.compile(r"^    --hash=sha256:([0-9a-f]{64})(?: \\)?$")
_VIA = re.compile(r"^    # +(?:via )?([a-z0-9][a-z0-9._-]*)(?: .*)?$")


def purl(name: str, version: str) -> str:
    """Return the package URL, which is also the component's reference."""
    return f"pkg:pypi/{name}@{version}"


def read_lock(text: str) -> list[dict[str, Any]]:
    """Return name, version, marker, digests and dependents of each pinned package.

    Raises:
        ValueError: a line is neither a pin, a digest nor a comment, or a pin has no digest.
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _PIN.match(line):
            name, version, marker = match.groups(default="")
            found.append(
                {"name": name, "version": version, "marker": marker, "hashes": [], "via": []}
            )
        elif match := _HASH.match(line):
            found[-1]["hashes"].append(match[1])
        elif found and (match := _VIA.match(line)) and match[1] != "via":
            found[-1]["via"].append(match[1])
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"line {number} of the lock file is not understood: {line[:80]!r}")
    if bare := [package["name"] for package in found if not package["hashes"]]:
        raise ValueError(f"no digest for {', '.join(bare)}")
    return found


def component(package: dict[str, Any]) -> dict[str, Any]:
    """Return the CycloneDX component of one package."""
    properties = [{"name": "hpcc:lock:sha256", "value": value} for value in package["hashes"]]
    if package["marker"]:
        properties.append({"name": "hpcc:lock:marker", "value": package["marker"]})
    reference = purl(package["name"], package["version"])
    return {
        "type": "library",
        "bom-ref": reference,
        "name": package["name"],
        "version": package["version"],
        "purl": reference,
        "properties": properties,
    }


def document(version: str, lock: str) -> dict[str, Any]:
    """Return the whole document for this version of hpcc and the text of its lock file."""
    packages = read_lock(lock)
    references = {p["name"]: purl(p["name"], p["version"]) for p in packages}
    references["hpcc"] = purl("hpcc", version)
    needs: dict[str, set[str]] = {reference: set() for reference in references.values()}
    for package in packages:
        for parent in package["via"]:
            needs[references[parent]].add(references[package["name"]])
    serial = uuid.uuid5(uuid.NAMESPACE_URL, references["hpcc"] + "\n" + lock)
    root = {"type": "application", "bom-ref": references["hpcc"], "name": "hpcc"}
    root |= {"version": version, "purl": references["hpcc"]}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": root},
        "components": [component(package) for package in packages],
        "dependencies": [
            {"ref": reference, "dependsOn": sorted(needs[reference])} for reference in sorted(needs)
        ],
    }


def main(argv: list[str]) -> int:
    """Write the document."""
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    content = document(argv[0], (ROOT / "requirements.lock").read_text())
    Path(argv[1]).write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
