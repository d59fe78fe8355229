"""A real BuildGrid that executes: one or two servers on loopback over one PostgreSQL and one CAS.

`missing_or_none` returns the reason to skip; `engine` runs the servers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc_testkit.services import buildgrid_server, postgres
from hpcc_testkit.services.buildgrid_server import program
from hpcc_testkit.services.postgres import private_postgres
from hpcc_testkit.services.s3_servers import free_ports

INSTANCE: Final = "main"
# How long BuildGrid believes in a bot that does not call.
KEEPALIVE_SECONDS: Final = 10
_START_SECONDS: Final = 120.0
_CONFIG: Final = """\
server: [ !channel {{ address: "127.0.0.1:{port}", insecure-mode: true }} ]
description: hpcc's tests
authorization: {{ method: none }}
monitoring: {{ enabled: false }}
connections:
  - !sql-connection &sql
    connection-string: "{url}"
storages: [ !disk-storage &cas {{ path: {directory}/cas }} ]
caches:
  - !lru-action-cache &ac
    storage: *cas
    max-cached-refs: 10000
    allow-updates: true
    cache-failed-actions: false
schedulers:
  - !sql-scheduler &sched
    sql: *sql
    storage: *cas
    action-cache: *ac
    property-set: !dynamic-property-set
      match-property-keys: [container-image]
      wildcard-property-keys: [OSFamily, ISA, network]
    assigners:
      - !priority-age-assigner
        count: 1
        interval: 0.02
        jitter-factor: 0.0
        priority-assignment-percentage: 100
    max-execution-timeout: 600
    max-job-attempts: 3
    bot-session-keepalive-timeout: {keepalive}
instances:
  - name: {instance}
    services:
      - !cas {{ storage: *cas }}
      - !bytestream {{ storage: *cas }}
      - !action-cache {{ cache: *ac }}
      - !execution {{ scheduler: *sched, operation-stream-keepalive-timeout: 30 }}
thread-pool-size: 40
"""


def missing_or_none() -> str | None:
    """Return what this machine lacks to run the engine, or None."""
    return buildgrid_server.missing_or_none() or postgres.missing_or_none()


@dataclass(slots=True)
class Server:
    """One server of the engine. `start` and `kill` may follow each other."""

    directory: Path
    config: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it, and wait until it listens. It ends with the thread that calls this."""
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(program()), "server", "start", "-v",
                 str(self.config)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory,
                env=_env(self.directory),
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_up():
            is_over = self._process.poll() is not None or time.monotonic() > deadline
            assert not is_over, (self.directory / "output").read_text()[-4000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it at once, as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _env(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(directory)}


@contextmanager
def engine(directory: Path, *, servers: int = 1) -> Iterator[tuple[Server, ...]]:
    """Run an engine while the block runs; its servers share queue and CAS."""
    with private_postgres() as cluster:
        # SQLAlchemy's spelling of the driver that the venv has.
        url = cluster.make_database("bgd").replace("postgresql://", "postgresql+psycopg://", 1)
        subprocess.run(
            [str(program()), "migrate", "apply", url], check=True, capture_output=True,
            timeout=_START_SECONDS, env=_env(directory), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        made: list[Server] = []
        try:
            for number, port in enumerate(free_ports(servers)):
                config = directory / f"bgd-{number}.yml"
                config.write_text(
                    _CONFIG.format(
                        port=port, url=url, directory=directory, instance=INSTANCE,
                        keepalive=KEEPALIVE_SECONDS,
                    )
                )  # fmt: skip
                made.append(Server(directory, config, port))
                made[-1].start()
            yield tuple(made)
        finally:
            for server in made:
                server.kill()
