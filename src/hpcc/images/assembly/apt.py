"""Parses the host's apt configuration and selects the parts for building toolchain images. Pure.

Formats: sources.list(5), both styles; apt-config(8) `dump`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_POCKETS: Final = ("", "-updates", "-security", "/updates")
_REMOTE: Final = ("http://", "https://", "mirror+http://", "mirror+https://")
_KEPT_OPTIONS: Final = re.compile(
    r"Acquire::(?:(?:https?|ftp)::(?:[^\s\"]+::)?(?:Proxy|Proxy-Auto-Detect|ProxyAutoDetect|"
    r"CaInfo|CaPath|Verify-Peer|Verify-Host|SslCert|SslKey|Timeout)|"
    r"Check-Valid-Until|Check-Date|Retries|Languages(?:::)?) \"[^\"\n]*\";"
)


@dataclass(frozen=True, slots=True)
class AptSource:
    """One source of packages. `signed_by` is the host's value: a key file or a key block."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def to_deb822(self) -> str:
        """Return the source as a deb822 stanza."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
        ]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def parse_sources(name: str, text: str) -> list[AptSource]:
    """Parse one file of sources; `name` tells its style. Malformed lines are skipped."""
    found = _deb822(text) if name.endswith(".sources") else _one_line(text)
    return list(found)


def select_sources(sources: Iterable[AptSource], suite: str) -> list[AptSource]:
    """Return the sources of `suite` and its updates, over the network, with component `main`.

    Local directories and media, backports, and repositories of third parties are left out, so
    that an image is the same on another machine.
    """
    wanted = {suite + pocket for pocket in _POCKETS}
    chosen = []
    for source in sources:
        uris = tuple(uri for uri in source.uris if uri.startswith(_REMOTE))
        suites = tuple(s for s in source.suites if s.rstrip("/") in wanted)
        if uris and suites and "main" in source.components:
            chosen.append(AptSource(uris, suites, source.components, source.signed_by))
    return chosen


def kept_options(dump: str) -> str:
    """Return the lines of `apt-config dump` that configure how this host reaches its mirrors."""
    return "".join(f"{line}\n" for line in dump.splitlines() if _KEPT_OPTIONS.fullmatch(line))


def parse_os_release(text: str) -> dict[str, str]:
    """Parse os-release(5) into a table; malformed values are skipped."""
    table = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            try:
                table[key] = "".join(shlex.split(value))
            except ValueError:
                continue
    return table


def _one_line(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)", line.strip())
        if match is None:
            continue
        options = dict(o.partition("=")[::2] for o in (match[1] or "").split())
        yield AptSource(
            (match[2],), (match[3],), tuple(match[4].split()), options.get("signed-by", "")
        )


def _deb822(text: str) -> Iterator[AptSource]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        is_enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "0", "off"}
        if is_enabled and "deb" in fields.get("types", "").split():
            yield AptSource(
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
            )


def _fields(stanza: str) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"} and key:
            # A key block in Signed-By keeps its lines and their leading space.
            fields[key] += "\n" + line.rstrip()
            continue
        key, colon, value = line.partition(":")
        key = key.strip().lower()
        if colon:
            fields[key] = value.strip()
        else:
            key = ""
    return fields
