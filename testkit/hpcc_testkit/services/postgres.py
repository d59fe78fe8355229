"""A real, private PostgreSQL cluster on a Unix socket, ended by its pid.

`missing_or_none` returns the reason to skip; `private_postgres` runs a cluster.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hpcc_testkit.services.server_certificate import ServerFiles

_START_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.05
_PORT: Final = 5432
# The server ends after this time even if the test process was killed.
LIFE_SECONDS: Final = 1800
# The role that makes databases and schemas.
OWNER: Final = "owner"


def postgres_bin_or_none() -> Path | None:
    """Return the distribution's newest directory with `initdb` and `postgres`, or None."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3])
    )
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    return Path(program).resolve().parent if program else None


def missing_or_none() -> str | None:
    """Return what this machine lacks to run PostgreSQL, or None."""
    if postgres_bin_or_none() is None:
        return "no PostgreSQL: tools/bootstrap.sh packages test"
    return None


class PrivatePostgres:
    """A cluster in a private directory.

    PostgreSQL refuses to run as root, so a test that runs as root starts it as another user.
    """

    def __init__(
        self, directory: Path, binaries: Path, uid: int | None, life_seconds: int = LIFE_SECONDS
    ) -> None:
        self._life_seconds = life_seconds
        self._directory, self._binaries, self._uid = directory, binaries, uid
        self._process: subprocess.Popen[bytes] | None = None
        self._more: tuple[str, ...] = ()
        self.port = _PORT
        # `user=` would make a full fork, which gRPC's threads in a test do not survive.
        self._become = ("setpriv", f"--reuid={uid}", "--clear-groups") if uid is not None else ()

    def url(self, database: str, user: str = OWNER) -> str:
        assert self.port == _PORT, "with TLS it is asked over TCP"
        return f"postgresql://{user}@/{database}?host={quote(str(self._directory))}"

    def create(self) -> None:
        self._run(
            "initdb", "-D", str(self._data), "-A", "trust", "-U", OWNER, "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip

    def use_tls(self, files: ServerFiles, password: str) -> int:
        """Listen on loopback, too, from the next start; clients need TLS and a password.

        Returns the port. The server also listens on 127.0.0.2, which is not in the certificate.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        self.sql("postgres", f"ALTER ROLE {OWNER} PASSWORD '{password}'")
        for source, name in ((files.certificate, "server.crt"), (files.key, "server.key")):
            target = self._data / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if self._uid is not None:
                os.chown(target, self._uid, -1)
        (self._data / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n"
        )
        self._more = (
            "-c", "listen_addresses=127.0.0.1,127.0.0.2", "-c", f"port={port}", "-c", "ssl=on",
        )  # fmt: skip
        self.port = port
        return port

    def start(self) -> None:
        """Start the server and wait until it answers; data survives `stop`."""
        assert self._process is None
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._become, "timeout", "--signal=QUIT", str(self._life_seconds),
                    str(self._binaries / "postgres"), "-D", str(self._data),
                    "-c", "listen_addresses=", "-c", f"unix_socket_directories={self._directory}",
                    "-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=32MB",
                    *self._more,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self._directory / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL did not start: {log_text}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End the server at once, as a crash does: connections break without a message."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def make_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        self.sql("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, database: str, text: str, user: str = OWNER) -> str:
        """Run statements; return the output of `psql` without headers."""
        return self._run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text,
            self.url(database, user),
        )  # fmt: skip

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _answers(self) -> bool:
        done = subprocess.run(
            [
                str(self._binaries / "pg_isready"), "-q", "-h", str(self._directory),
                "-p", str(self.port),
            ],
            check=False, timeout=30,
        )  # fmt: skip
        return done.returncode == 0

    def _run(self, program: str, *args: str) -> str:
        done = subprocess.run(
            [*self._become, str(self._binaries / program), *args],
            check=False, capture_output=True, text=True, timeout=_START_SECONDS, cwd="/",
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr[-2000:]}")
        return done.stdout.strip()


@contextmanager
def private_postgres(life_seconds: int = LIFE_SECONDS) -> Generator[PrivatePostgres]:
    """Run a cluster while the block runs, then remove it.

    Its directory is outside the test's, which another user could not enter.
    """
    binaries = postgres_bin_or_none()
    assert binaries is not None, missing_or_none()
    uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="hpcc-pg-"))
    try:
        if uid is not None:
            os.chown(directory, uid, -1)
        cluster = PrivatePostgres(directory, binaries, uid, life_seconds)
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
