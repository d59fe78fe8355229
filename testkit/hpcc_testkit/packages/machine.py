"""This machine's root as a copy in memory: what is installed there is gone at the end.

A package manager needs root, a database of packages and the real paths. The copy has them: an
overlay on `/`, whose upper layer is a tmpfs, in namespaces of mounts and processes. systemd does
not run in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_START: Final = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mkdir "$1/root/shared"
mount --bind "$2" "$1/root/shared"
cd "$1/root"
# Pages of the manual are indexed in each installation otherwise.
rm -f var/lib/man-db/auto-update
# The root is the copy before the line: a command before that would change this machine.
exec chroot . sh -c 'echo ready; exec sleep infinity'
"""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOBODY: Final = "65534"


class MachineCopy:
    """The copy; it has the directory `shared` of this machine as /shared."""

    def __init__(self, pid: int, shared: Path) -> None:
        self._pid, self.shared = pid, shared

    def run(self, *argv: str | Path, status: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Run a command as root; return what it prints, also its errors."""
        place = f"/proc/{self._pid}/root"
        command = [
            "nsenter",
            "-t",
            str(self._pid),
            "-m",
            "-p",
            f"--root={place}",
            "--wdns=/",
            *argv,
        ]
        done = subprocess.run(
            command, env={"PATH": _PATH, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{argv} -> {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def lend(self, files: Sequence[Path]) -> list[str]:
        """Copy files to `shared`; return the names that they have in the copy."""
        for file in files:
            shutil.copy(file, self.shared)
        return [f"/shared/{file.name}" for file in files]

    @property
    def home(self) -> Path:
        """Return the home of the user without rights."""
        return self.shared / "home"

    def run_as_nobody(self, script: str) -> str:
        """Run a shell script as a user without rights, in its home."""
        if not self.home.exists():
            self.home.mkdir()
            os.chown(self.home, int(_NOBODY), int(_NOBODY))
        ids = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        home = f"/shared/{self.home.name}"
        env = {"HOME": home, "HPCC_DIR": f"{home}/hpcc"}
        return self.run("setpriv", *ids, "sh", "-euc", f"cd {home}\n{script}", env=env)


@contextmanager
def machine_copy(directory: Path) -> Iterator[MachineCopy]:
    """Yield a copy of this machine that shares `directory`, until the block ends."""
    scratch, shared = directory / "scratch", directory / "shared"
    scratch.mkdir()
    shared.mkdir()
    command = ["unshare", "-m", "-p", "--fork", "--kill-child", "sh", "-euc", _START, "sh"]
    with subprocess.Popen(
        [*command, str(scratch), str(shared)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield MachineCopy(int(child), shared)
        finally:
            process.kill()


def missing_or_none() -> str | None:
    """Return why this machine has no copy, or None."""
    return None if os.geteuid() == 0 else "a copy of this machine needs root"
