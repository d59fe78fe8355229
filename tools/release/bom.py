"""The bill of materials of a release: CycloneDX 1.6 in JSON.

It lists what an installed hpcc runs besides its own code: each pin of requirements.lock, with the
digests that pip accepts, its marker and its licence, and the C library that is linked into the
launcher. It does not list what the makers of those packages compiled into their wheels.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.dsse import RefusedError
from release.licences import Row
from release.lock import Package

PREDICATE = "https://cyclonedx.org/bom"


def _licence(expression: str) -> DisjunctiveLicense | LicenseExpression:
    if " " in expression:
        return LicenseExpression(expression)
    return DisjunctiveLicense(id=expression)


def component(package: Package, expression: str) -> Component:
    """Return the component of one pin."""
    properties = [Property(name="hpcc:lock:sha256", value=digest) for digest in package.digests]
    if package.marker:
        properties.append(Property(name="hpcc:lock:marker", value=package.marker))
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=package.purl,
        name=package.name,
        version=package.version,
        purl=PackageURL.from_string(package.purl),
        licenses=[_licence(expression)],
        properties=properties,
    )


def linked() -> list[Component]:
    """Return the C library that tools/hatch_build.py links into the launcher on this machine."""
    if not shutil.which("musl-gcc"):
        return []
    asked = ["dpkg-query", "-W", "-f=${Version}", "musl-dev"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        version = done.stdout.strip() if done.returncode == 0 else ""
    except FileNotFoundError:
        version = ""
    return [
        Component(
            type=ComponentType.LIBRARY,
            bom_ref="musl",
            name="musl",
            version=version or None,
            purl=PackageURL("deb", "debian", "musl", version) if version else None,
            licenses=[_licence("MIT")],
            properties=[Property(name="hpcc:linked", value="statically, into bin/hpcc")],
        )
    ]


def document(
    version: str,
    packages: Sequence[Package],
    licences: Mapping[str, Row],
    epoch: int,
    extra: Sequence[Component] = (),
) -> bytes:
    """Return the document. CycloneDX's schema accepts it; the same input gives the same bytes.

    Raises:
        RefusedError: a licence is missing, or the schema rejects the document.
    """
    root = Component(
        type=ComponentType.APPLICATION,
        bom_ref=f"pkg:pypi/hpcc@{version}",
        name="hpcc",
        version=version,
        purl=PackageURL("pypi", None, "hpcc", version),
        licenses=[_licence("Apache-2.0")],
    )
    made = {"hpcc": root}
    for package in packages:
        row = licences.get(package.name)
        if row is None or row.version != package.version:
            raise RefusedError(
                f"no licence of {package.name} {package.version}: make static says more"
            )
        made[package.name] = component(package, row.expression)
    bom = Bom(components=[*list(made.values())[1:], *extra])
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    named = [f"{one.name} {one.version}" for one in extra]
    seed = "\n".join([f"hpcc {version} {epoch}", *map(repr, packages), *named])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, seed)
    for package in packages:
        for parent in package.via:
            bom.register_dependency(made[parent], [made[package.name]])
    bom.register_dependency(root, extra)
    for one in (*made.values(), *extra):
        bom.register_dependency(one)
    content = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    validate(content)
    return content.encode()


@cache
def _validator() -> JsonStrictValidator:
    """Return the validator. It reads the schema once."""
    return JsonStrictValidator(SchemaVersion.V1_6)


def validate(content: str) -> None:
    """Check a document against CycloneDX's schema, which the library brings.

    Raises:
        RefusedError: the schema rejects it.
    """
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the bill of materials is not JSON: {error}") from error
    if problem := _validator().validate_str(content):
        raise RefusedError(
            f"the bill of materials breaks its schema: {str(problem).splitlines()[0]}"
        )
