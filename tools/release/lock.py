"""Reads the lock files that `uv pip compile --generate-hashes` writes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; (.+?))? \\$")
_HASH = re.compile(r"^    --hash=sha256:([0-9a-f]{64})(?: \\)?$")
_VIA = re.compile(r"^    # +(?:via )?([a-z0-9][a-z0-9._-]*)(?: .*)?$")


@dataclass(slots=True)
class Package:
    """One pin: its marker, the digests that pip accepts, and the packages that need it."""

    name: str
    version: str
    marker: str = ""
    digests: list[str] = field(default_factory=list)
    via: list[str] = field(default_factory=list)

    @property
    def purl(self) -> str:
        """Return the package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Package]:
    """Return each pinned package, in the order of the file.

    Raises:
        ValueError: a line is neither a pin, a digest nor a comment, or a pin has no digest.
    """
    found: list[Package] = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _PIN.match(line):
            name, version, marker = match.groups(default="")
            found.append(Package(name, version, marker))
        elif match := _HASH.match(line):
            found[-1].digests.append(match[1])
        elif found and (match := _VIA.match(line)) and match[1] != "via":
            found[-1].via.append(match[1])
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"line {number} of the lock file is not understood: {line[:80]!r}")
    if bare := [package.name for package in found if not package.digests]:
        raise ValueError(f"no digest for {', '.join(bare)}")
    return found
