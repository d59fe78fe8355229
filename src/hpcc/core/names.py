"""Names that travel between parts. Each is parsed once into a type that is always valid."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, Self

from hpcc.core.errors import CallerError

_TENANT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
# Repository part of an image reference, as the OCI distribution spec allows it, with a host.
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:[._:/-]+[a-z0-9]+)*")
MAX_REPOSITORY_CHARS: Final = 255


@dataclass(frozen=True, slots=True, order=True)
class TenantId:
    """A party that must be kept apart: a name like a DNS label, also the REAPI instance name."""

    value: str

    def __post_init__(self) -> None:
        """Reject values that cannot be a directory name, a label or an instance name."""
        if not _TENANT.fullmatch(self.value):
            raise CallerError(
                f"not a tenant id: {self.value[:80]!r} (1 to 63 of a-z, 0-9 and inner '-')"
            )

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class ImageDigest:
    """`sha256:` and 64 hex digits: the manifest digest that identifies the toolchain."""

    value: str

    def __post_init__(self) -> None:
        """Reject tags and other algorithms."""
        if not _SHA256.fullmatch(self.value):
            raise CallerError(f"not an image digest (sha256:…): {self.value[:100]!r}")

    @property
    def hex(self) -> str:
        return self.value.removeprefix("sha256:")

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class ImageRef:
    """A pinned image: repository and digest, spelled `repo@sha256:…`."""

    repository: str
    digest: ImageDigest

    def __post_init__(self) -> None:
        """Reject repositories that could be parsed as a path or an option."""
        if len(self.repository) > MAX_REPOSITORY_CHARS or not _REPOSITORY.fullmatch(
            self.repository
        ):
            raise CallerError(f"not an image repository: {self.repository[:100]!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference in `[docker://]repo@sha256:…`.

        Raises:
            CallerError: unpinned or malformed.
        """
        repository, at, digest = text.removeprefix("docker://").partition("@")
        if not at:
            raise CallerError(
                f"image {text[:100]!r} is not pinned: write repo@sha256:…, a tag can move",
                reason="unpinned-image",
            )
        return cls(repository, ImageDigest(digest))

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"

    @property
    def platform_value(self) -> str:
        """Return the value of the REAPI platform property `container-image`."""
        return f"docker://{self}"


class Isolation(enum.StrEnum):
    """What isolated a compile from the host: the label of rows, results and the CLI."""

    FIRECRACKER_KVM = "firecracker/kvm"
    QEMU_KVM = "qemu/kvm"
    QEMU_TCG = "qemu/tcg"
    HYPERV = "hyperv"
    PROCESS_WINDOWS = "process/windows"
    PROCESS_RUNC = "process/runc"
    LOCAL_NONE = "local/none"
    # Another REAPI service ran it, and its isolation is not known.
    FOREIGN_UNKNOWN = "foreign/unknown"

    @property
    def rank(self) -> int:
        """Return the strength for policy: 3 own kernel, 2 container, 0 none.

        Equal ranks satisfy each other. TCG guests have their own kernel and the same boundary (the
        VMM process). KVM only adds speed, so both have the same rank.
        """
        match self:
            case (
                Isolation.FIRECRACKER_KVM
                | Isolation.QEMU_KVM
                | Isolation.QEMU_TCG
                | Isolation.HYPERV
            ):
                return 3
            case Isolation.PROCESS_WINDOWS | Isolation.PROCESS_RUNC:
                return 2
            case Isolation.LOCAL_NONE | Isolation.FOREIGN_UNKNOWN:
                return 0


class GuestReuse(enum.StrEnum):
    """Whose code a guest may have run before it produces a result."""

    EXEC = "exec"
    PRINCIPAL = "principal"
    TENANT = "tenant"

    def stricter(self, other: GuestReuse) -> GuestReuse:
        """Return the one of the two that lets fewer share a guest."""
        order = (GuestReuse.EXEC, GuestReuse.PRINCIPAL, GuestReuse.TENANT)
        return min(self, other, key=order.index)


class GuestMitigations(enum.StrEnum):
    """Which guests' kernels defend their processes against side channels of the CPU."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"

    def are_on(self, reuse: GuestReuse) -> bool:
        """Return whether a guest of this class has them.

        With "auto" it has them where code of several principals runs in it. A guest of one
        principal holds no secret that its code could not read anyway.
        """
        if self is GuestMitigations.AUTO:
            return reuse is GuestReuse.TENANT
        return self is GuestMitigations.ON
