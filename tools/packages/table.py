"""The packages: what each is for, which extra of hpcc it brings, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Those for which every library in the lock file has a wheel.
PYTHONS: Final = ("3.12", "3.13", "3.14")
FROM_PYTHON: Final = PYTHONS[0]
BEFORE_PYTHON: Final = "3.15"
# dpkg wants an address, and there is none: RFC 2606 keeps this name free.
MAINTAINER: Final = "The hpcc authors <hpcc@hpcc.invalid>"
CODE: Final = "code"
SERVICE: Final = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package, of both kinds.

    `extra` is the extra of pyproject.toml whose libraries are in it. `service` is the service whose
    units are in it: such a package is the same for each architecture. `needs` are packages of the
    same version. `deb` and `rpm` are dependencies by field, in each family's names.
    """

    name: str
    summary: str
    text: str
    extra: str = ""
    service: str = ""
    needs: tuple[str, ...] = ()
    deb: tuple[tuple[str, str], ...] = ()
    rpm: tuple[tuple[str, str], ...] = ()

    @property
    def role(self) -> str:
        """Return whose maintainer scripts it has."""
        return SERVICE if self.service else CODE

    @property
    def is_for_any_machine(self) -> bool:
        """Return whether nothing in it was compiled."""
        return bool(self.service)


PACKAGES: Final = (
    Package(
        name="hpcc",
        summary="compiler cache that a security reviewer will approve",
        text="The local cache: put hpcc in front of gcc, g++ or clang, and a compile that was done "
        "before comes back in about a millisecond. It brings no Python library.",
        deb=(
            ("Depends", f"python3 (>= {FROM_PYTHON}), python3 (<< {BEFORE_PYTHON})"),
            ("Suggests", "hpcc-client"),
        ),
        rpm=(
            ("Requires", f"python3 >= {FROM_PYTHON}"),
            ("Requires", f"python3 < {BEFORE_PYTHON}"),
            ("Suggests", "hpcc-client"),
        ),
    ),
    Package(
        name="hpcc-client",
        summary="hpcc for users of a farm or of a team's remote cache",
        text="The libraries with which hpcc compiles on a farm, logs in to one, and shares signed "
        "results through a bucket.",
        extra="client",
        needs=("hpcc",),
        deb=(("Depends", "libstdc++6, libgcc-s1"), ("Recommends", "ca-certificates")),
        rpm=(
            ("Requires", "libstdc++.so.6()(64bit)"),
            ("Requires", "libgcc_s.so.1()(64bit)"),
            ("Recommends", "ca-certificates"),
        ),
    ),
    Package(
        name="hpcc-farm",
        summary="hpcc for machines of a farm, and for a farm on one machine",
        text="The libraries of schedulers, workers, gateways, images and the audit trail. With it "
        "`hpcc up` runs a farm on this machine. It has no unit and no user.",
        extra="farm",
        needs=("hpcc-client",),
        deb=(("Suggests", "hpcc-worker, hpcc-scheduler, hpcc-gateway"),),
        rpm=(("Suggests", "hpcc-worker"), ("Suggests", "hpcc-scheduler")),
    ),
    Package(
        name="hpcc-scheduler",
        summary="unit and settings of an hpcc farm's scheduler",
        text="It routes compiles to workers. Installing it starts nothing: edit "
        "/etc/hpcc/scheduler/scheduler.json, then enable hpcc-scheduler.service.",
        service="scheduler",
        needs=("hpcc-farm",),
        deb=(("Depends", "systemd"), ("Suggests", "postgresql")),
        rpm=(("Requires", "systemd"), ("Suggests", "postgresql-server")),
    ),
    Package(
        name="hpcc-gateway",
        summary="unit and settings of an hpcc farm's gateway for Bazel",
        text="It serves stock REAPI clients. Installing it starts nothing: edit "
        "/etc/hpcc/gateway/gateway.json, then enable hpcc-gateway.service.",
        service="gateway",
        needs=("hpcc-farm",),
        deb=(("Depends", "systemd"),),
        rpm=(("Requires", "systemd"),),
    ),
    Package(
        name="hpcc-worker",
        summary="units and settings of an hpcc farm's worker",
        text="It compiles in virtual machines. Installing it starts nothing: edit "
        "/etc/hpcc/worker/worker.json, then enable hpcc-worker.service.",
        service="worker",
        needs=("hpcc-farm",),
        deb=(
            ("Depends", "systemd"),
            # Guests and images; a worker with containers needs other tools.
            ("Recommends", "qemu-system-x86, erofs-utils, mmdebstrap, dpkg-dev, apt-utils"),
            ("Recommends", "gcc, libc6-dev, musl-tools"),
        ),
        rpm=(
            ("Requires", "systemd"),
            ("Recommends", "qemu-system-x86-core"),
            ("Recommends", "erofs-utils"),
            ("Recommends", "gcc"),
        ),
    ),
)
