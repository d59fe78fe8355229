"""Which layers a Windows image has: its index, manifest and configuration. No I/O.

The author of an image controls these documents. So each is bounded, and anything that the OCI image
specification does not allow is refused. Sources: OCI image-spec `image-index.md`, `manifest.md`,
`config.md`; Microsoft, "Windows container version compatibility", and hcsshim,
`osversion/platform_compat_windows.go`, for the builds that a host runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.core import IntegrityError, NotFoundError

MAX_DOCUMENT_BYTES: Final = 4 << 20
_MAX_MANIFESTS: Final = 256
_MAX_LAYERS: Final = 256
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION: Final = re.compile(r"10\.0\.([0-9]{1,6})(?:\.([0-9]{1,6}))?")
_MAX_NAME_CHARS: Final = 80
# Builds of the long-term releases whose kernels keep their interface for containers, ascending:
# Windows Server 2022 and 2025. Each runs images from the one before it on.
_STABLE_RELEASES: Final = (20348, 26100)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A document or layer that another document names."""

    digest: str
    size_bytes: int
    os_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBuild:
    """The host's build of Windows, which decides what images run here.

    A utility VM may have an older build. On the host's own kernel the builds must be equal before
    Windows Server 2022; from then on a host also runs images from the release before its own.
    """

    build: int
    is_hyperv: bool

    def why_not(self, os_version: str) -> str:
        """Return why an image of this version does not run here; "" if it does."""
        match = _VERSION.fullmatch(os_version)
        if match is None:
            return f"it does not name its build of Windows ({_short(os_version)})"
        build = int(match[1])
        if build == self.build or (self.is_hyperv and build < self.build):
            return ""
        if self.is_hyperv:
            return f"it is for build {build}, and the host has the older {self.build}"
        oldest = self._oldest_in_process
        if oldest <= build < self.build:
            return ""
        own = f"the host's own, {self.build}"
        wanted = own if oldest == self.build else f"{oldest} or newer, up to {own}"
        return f"it is for build {build}, and in process isolation it must be {wanted}"

    @property
    def _oldest_in_process(self) -> int:
        before = [release for release in _STABLE_RELEASES if release < self.build]
        return before[-1] if before else self.build


def manifest_of_index(data: bytes, host: HostBuild) -> ImagePart | None:
    """Return the manifest for this host that an index names; None if `data` is not an index.

    Among several, the newest that can run here is returned.

    Raises:
        IntegrityError: the document is malformed.
        NotFoundError: none of the manifests can run here.
    """
    table = _document(data)
    if "manifests" not in table:
        return None
    entries = _list(table, "manifests", _MAX_MANIFESTS)
    parts = [part for entry in entries if (part := _windows_part(entry)) is not None]
    usable = [part for part in parts if not host.why_not(part.os_version)]
    if not usable:
        why = "; ".join(host.why_not(part.os_version) for part in parts[:3])
        raise NotFoundError(
            f"the image has nothing for windows/amd64 on this host: {why or 'no such platform'}",
            reason="no-image",
        )
    return max(usable, key=lambda part: _numbers(part.os_version))


def config_of_manifest(data: bytes) -> ImagePart:
    """Return the configuration that a manifest names.

    Raises:
        IntegrityError: the document is malformed.
    """
    return _part(_object(_document(data).get("config"), "config"))


def layers_of_config(data: bytes, host: HostBuild) -> tuple[str, ...]:
    """Return the digests of the unpacked layers, the lowest first.

    Raises:
        IntegrityError: the document is malformed.
        NotFoundError: the image does not run on this host.
    """
    table = _document(data)
    system, version = table.get("os"), table.get("os.version")
    if system != "windows" or table.get("architecture") != "amd64" or not isinstance(version, str):
        raise NotFoundError("the image is not for windows/amd64", reason="no-image")
    if why := host.why_not(version):
        raise NotFoundError(f"the image does not run on this host: {why}", reason="no-image")
    found = _list(_object(table.get("rootfs"), "rootfs"), "diff_ids", _MAX_LAYERS)
    layers = tuple(_digest(entry) for entry in found)
    if not layers:
        raise _bad("an image without a layer")
    return layers


def _windows_part(entry: object) -> ImagePart | None:
    table = _object(entry, "manifest")
    platform = table.get("platform")
    if not isinstance(platform, dict):
        return None
    version = platform.get("os.version")
    is_ours = platform.get("os") == "windows" and platform.get("architecture") == "amd64"
    if not is_ours or not isinstance(version, str):
        return None
    part = _part(table)
    return ImagePart(part.digest, part.size_bytes, version)


def _numbers(os_version: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(os_version)
    assert match is not None  # `why_not` has checked it
    return int(match[1]), int(match[2] or 0)


def _part(table: dict[str, object]) -> ImagePart:
    size = table.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= MAX_DOCUMENT_BYTES:
        raise _bad("a part without a size, or with too large a size")
    return ImagePart(_digest(table.get("digest")), size)


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _bad("a digest that is not sha256:…")
    return value


def _document(data: bytes) -> dict[str, object]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _bad("a document that is too large")
    try:
        return _object(json.loads(data), "document")
    except (ValueError, RecursionError) as error:
        raise _bad("no JSON") from error


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _bad(f"a {what} that is not an object")
    return value


def _list(table: dict[str, object], name: str, most: int) -> Sequence[object]:
    value = table.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise _bad(f"{name} that are not a list, or too many")
    return value


def _short(text: str) -> str:
    return ascii(text[:_MAX_NAME_CHARS])


def _bad(what: str) -> IntegrityError:
    return IntegrityError(f"the image is malformed: {what}", reason="image-manifest")
