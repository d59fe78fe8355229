"""A private containerd for tests: root, state and socket in one directory, few plugins.

Open `containerd_daemon`; at the end `leftovers` must be empty.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_READY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_TAIL_CHARS: Final = 4000
_END_SECONDS: Final = 20.0
_CONFIG: Final = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{0}/containerd.sock"
[ttrpc]
address = "{0}/containerd.ttrpc.sock"
[debug]
level = "warn"
"""


class ContainerdDaemon:
    """One containerd; `start` it again after `kill`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.socket = directory, directory / "containerd.sock"
        self._config, self._log = directory / "config.toml", directory / "log"
        self._config.write_text(_CONFIG.format(directory))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if shutil.which("containerd") is None:
            raise AssertionError("containerd is not installed: tools/bootstrap.sh packages test")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["containerd", "--config", str(self._config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"containerd did not start\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-_TAIL_CHARS:]

    def leftovers(self) -> list[str]:
        """Return the shims, mounts and cgroups of containers that still exist."""
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        shims = [
            f"shim {entry.name}"
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(self.socket) in _command_line(entry)
            and entry.name != str(os.getpid())
        ]  # fmt: skip
        bundles = self.directory / "state/io.containerd.runtime.v2.task/hpcc"
        tasks = [f"task {p.name}" for p in bundles.iterdir()] if bundles.exists() else []
        return shims + tasks + [m for m in mounts if str(self.directory) in m]

    def _answers(self) -> bool:
        done = subprocess.run(
            ["ctr", "--address", str(self.socket), "--connect-timeout", "1s", "version"],
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0


def _command_line(process: Path) -> str:
    try:
        raw = (process / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.decode(errors="replace") if b"containerd-shim" in raw else ""


@contextmanager
def containerd_daemon() -> Iterator[ContainerdDaemon]:
    """Run a containerd in a temporary directory, whose name is short enough for its sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hpcc-ctd-"))
    # The root of a container's user namespace opens its bundle through this directory.
    directory.chmod(0o711)
    daemon = ContainerdDaemon(directory)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)
