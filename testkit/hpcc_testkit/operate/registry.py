"""Debian's docker-registry on loopback, which skopeo fills."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_CONFIG: Final = """version: 0.1
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
log:
  level: error
"""
_START_SECONDS: Final = 60.0


class Registry:
    """A registry while the block runs; `port` is where it listens."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        config = self._directory / "registry.yml"
        config.write_text(_CONFIG.format(root=self._directory / "storage", port=self.port))
        self._process = subprocess.Popen(
            ["docker-registry", "serve", config],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "the registry does not listen"
                time.sleep(0.05)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def take(self, layout: Path, name: str) -> None:
        """Copy an image of an OCI layout into the registry, with its digest unchanged."""
        subprocess.run(
            [
                "skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
                f"oci:{layout}", f"docker://127.0.0.1:{self.port}/{name}:latest",
            ],
            check=True,
        )  # fmt: skip
