"""A site with fresh machines: what docs/operate.md takes as given, and nothing of hpcc's.

A machine has Debian with systemd, ssh for root among the machines, names, a mirror of packages, and
hpcc's packages in root's home. The site has a registry with a toolchain image and a provider.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc_testkit.farm import booted
from hpcc_testkit.farm.booted import BootedMachine, distribution, make_bridge, own_network
from hpcc_testkit.farm.estate import ProviderThread
from hpcc_testkit.operate.lending import Lender, Mirror
from hpcc_testkit.operate.registry import Registry
from hpcc_testkit.operate.typist import PERSON
from hpcc_testkit.packages.built import ALL, Builder, built_wheel
from hpcc_testkit.services import identity_provider
from hpcc_testkit.services.identity_provider import CLIENT

_PACKAGES: Final = ("systemd,systemd-sysv,dbus,iproute2", "openssh-server,sudo,ca-certificates")
_MIRROR_PORT: Final = 3142
# Each machine, its address, and what it is in the page's table. A gateway may have a scheduler's.
_MACHINES: Final = {
    "db1": ("10.77.0.11", ("db1",)),
    "s1": ("10.77.0.21", ("s1",)),
    "s2": ("10.77.0.22", ("s2", "g1")),
    "w1": ("10.77.0.31", ("w1",)),
    "d1": ("10.77.0.41", ("d1",)),
}
_DEVICES: Final = ("/dev/kvm", "/dev/net/tun", "/dev/userfaultfd")
_APT: Final = f"""Acquire::http::Proxy "http://127.0.0.1:{_MIRROR_PORT}";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Languages "none";
"""


def missing_or_none() -> str | None:
    """Return what this host lacks for a site, or None."""
    for program in ("docker-registry", "skopeo", "ssh-keygen"):
        if shutil.which(program) is None:
            return f"no {program}: tools/bootstrap.sh packages test"
    return identity_provider.missing_or_none() or booted.missing_or_none()


@dataclass(frozen=True, slots=True)
class Site:
    """The machines by the names that the page gives them, and the values of its addresses."""

    machines: Mapping[str, BootedMachine]
    addresses: Mapping[str, str]
    provider: ProviderThread

    def processor_seconds(self) -> float:
        """Return what the machines, and commands that were typed there, have used so far."""
        typed = resource.getrusage(resource.RUSAGE_CHILDREN)
        machines = {id(machine): machine for machine in self.machines.values()}
        used = sum(machine.processor_seconds() for machine in machines.values())
        return typed.ru_utime + typed.ru_stime + used


@contextmanager
def fresh_site(directory: Path, shared_cache: Path, layout: Path, image: str) -> Iterator[Site]:
    """Boot the machines while the block runs.

    Args:
        directory: an empty one, for the machines' files.
        shared_cache: keeps the distribution and packages of the mirror between runs.
        layout: the OCI layout of the image that the registry gets.
        image: its digest.
    """
    base = _base(directory, shared_cache)
    with ExitStack() as stack:
        mirror = stack.enter_context(Mirror(shared_cache / "machines" / "mirror"))
        outside = stack.enter_context(Lender())
        stack.enter_context(own_network())
        make_bridge()
        inside = stack.enter_context(Lender())
        provider = stack.enter_context(ProviderThread())
        registry = stack.enter_context(Registry(directory / "registry"))
        registry.take(layout, "toolchains/gcc")
        machines: dict[str, BootedMachine] = {}
        for name, (address, roles) in _MACHINES.items():
            machine = BootedMachine(directory, base, name, address=address)
            stack.callback(machine.close)
            machine.boot(*(_DEVICES if name == "w1" else ()))
            outside.lend(machine.pid, _MIRROR_PORT, mirror.port)
            provider_port = int(provider.issuer.rpartition(":")[2])
            for port in (provider_port, registry.port):
                inside.lend(machine.pid, port, port)
            machines |= dict.fromkeys(roles, machine)
        addresses = {role.upper(): f"{role}.acme.example" for role in machines}
        del addresses["D1"], addresses["DB1"]
        yield Site(
            machines,
            {
                **addresses,
                "DB": "db1.acme.example",
                "ISSUER": provider.issuer,
                "CLIENT_ID": CLIENT,
                "IMAGE": f"127.0.0.1:{registry.port}/toolchains/gcc@{image}",
                # /dev/kvm does not work in a container of a machine that has none.
                "ISOLATION": "qemu/tcg",
                "GUEST_MIB": "512",
            },
            provider,
        )


def _base(directory: Path, shared_cache: Path) -> Path:
    root, made = directory / "base", directory / "packages"
    root.mkdir(parents=True)
    made.mkdir()
    subprocess.run(
        ["tar", "-x", "-f", distribution(shared_cache, _PACKAGES), "-C", root], check=True
    )
    Builder(built_wheel(made)).build(root / "root", "deb", ALL)
    (root / "etc/apt/apt.conf.d/90site").write_text(_APT)
    hosts = ["127.0.0.1 localhost"]
    for name, (address, roles) in _MACHINES.items():
        hosts.append(" ".join([address, name, *(f"{role}.acme.example" for role in roles)]))
    (root / "etc/hosts").write_text("\n".join(hosts) + "\n")
    ssh = root / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    key = ssh / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
    # All machines are copies of one, with one key of the host.
    (host_key,) = (root / "etc/ssh").glob("ssh_host_ed25519_key.pub")
    (ssh / "known_hosts").write_text(f"* {host_key.read_text()}")
    subprocess.run(["chroot", root, "useradd", "-m", "-s", "/bin/bash", PERSON], check=True)
    return root
