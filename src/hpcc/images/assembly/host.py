"""Describes this machine for building images: its release, apt sources and privileges."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcc.core import CallerError
from hpcc.images.assembly.apt import AptSource, parse_os_release, parse_sources, select_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSystem:
    """The parts of this machine that a build depends on."""

    uid: int
    user: str
    env: Mapping[str, str]
    root: Path = Path("/")

    @property
    def suite(self) -> str:
        """Return the codename of this distribution's release, or "" if it has none."""
        for name in ("etc/os-release", "usr/lib/os-release"):
            with suppress(OSError):
                table = parse_os_release((self.root / name).read_text(encoding="utf-8"))
                return table.get("VERSION_CODENAME", "")
        return ""

    def sources(self, suite: str) -> list[AptSource]:
        """Return this host's apt sources for `suite`."""
        base = self.root / "etc/apt"
        files = [base / "sources.list", *sorted((base / "sources.list.d").glob("*"))]
        found: list[AptSource] = []
        for path in files:
            if path.suffix in {".list", ".sources"}:
                with suppress(OSError):
                    text = path.read_text(encoding="utf-8", errors="replace")
                    found += parse_sources(path.name, text)
        return select_sources(found, suite)

    def which(self, tool: str) -> str | None:
        """Return the path of a tool, or None if it is not installed."""
        return shutil.which(tool, path=f"{self.env.get('PATH', '')}:/usr/sbin:/sbin")

    def mode(self) -> str:
        """Return the mode of mmdebstrap that works here: "root", "unshare" or "fakechroot".

        Raises:
            CallerError: no mode works; the text tells what to install.
        """
        if self.uid == 0:
            return "root"
        if self._can_unshare():
            return "unshare"
        if self.which("fakechroot") and self.which("fakeroot"):
            return "fakechroot"
        raise CallerError(
            "building an image without root needs user namespaces (sudo apt-get install uidmap, "
            f"and a line for {self.user} in /etc/subuid and /etc/subgid) or fakechroot "
            "(sudo apt-get install fakechroot fakeroot); or use sudo",
            reason="no-privilege",
        )

    def _can_unshare(self) -> bool:
        if not self.which("newuidmap") or not self.which("newgidmap"):
            return False
        for switch, off in (
            ("proc/sys/kernel/unprivileged_userns_clone", "0"),
            ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            ("proc/sys/user/max_user_namespaces", "0"),
        ):
            with suppress(OSError):
                if (self.root / switch).read_text(encoding="ascii").strip() == off:
                    return False
        for name in ("etc/subuid", "etc/subgid"):
            try:
                lines = (self.root / name).read_text(encoding="utf-8").splitlines()
            except OSError:
                return False
            if not any(line.split(":")[0] in {self.user, str(self.uid)} for line in lines):
                return False
        return True
