"""A bill of materials in CycloneDX 1.6: the file, its parts, packages and images.

Source: https://cyclonedx.org/docs/1.6/json/. It follows from the making and the rows, without a
time or a random number.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from typing import Final

from hpcc.audit.base.canonical import Record, canonical
from hpcc.evidence.model import DIGEST, FilePart, Making

_SCHEMA: Final = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_PREFIX: Final = "sha256:"


def sbom_of(making: Making, records: Iterable[Record]) -> bytes:
    """Return the bill of materials of a file as canonical JSON."""
    components = [*_files(making.parts), *_packages(making.parts), *_images(records)]
    subject = {
        "type": "file", "bom-ref": "subject", "name": making.name or "file",
        "hashes": _hashes(making.digest),
    }  # fmt: skip
    table = {
        "$schema": _SCHEMA, "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": f"urn:uuid:{_serial(making)}",
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [
            {"ref": "subject", "dependsOn": sorted(str(c["bom-ref"]) for c in components)}
        ],
    }  # fmt: skip
    return canonical(table) + b"\n"


def _files(parts: Iterable[FilePart]) -> list[dict[str, object]]:
    return [
        {
            "type": "file", "bom-ref": f"part:{number}", "name": part.name or "part",
            **({"hashes": _hashes(part.digest)} if part.digest else {}),
        }
        for number, part in enumerate(parts)
    ]  # fmt: skip


def _packages(parts: Iterable[FilePart]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for purl in sorted({part.package for part in parts if part.package}):
        name, _, version = purl.partition("?")[0].rpartition("/")[2].partition("@")
        found.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    return found


def _images(records: Iterable[Record]) -> list[dict[str, object]]:
    digests = {str(record.body.get("image_digest")) for record in records}
    return [
        {
            "type": "container", "bom-ref": f"image:{digest}", "name": "toolchain image",
            "version": digest, "hashes": _hashes(digest.removeprefix(_PREFIX)),
        }
        for digest in sorted(digests)
        if DIGEST.fullmatch(digest.removeprefix(_PREFIX))
    ]  # fmt: skip


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _serial(making: Making) -> str:
    digest = hashlib.sha256(b"hpcc-sbom-1\0" + making.digest.encode()).digest()[:16]
    return str(uuid.UUID(bytes=digest, version=4))
