"""A whole farm of real parts on one machine, set up with the commands that an operator uses.

The farm has PostgreSQL, an S3 server, an OpenID provider for each tenant, two schedulers, two
workers with guests, and people with one machine each.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc_testkit.farm.machine import HPCC, Machine
from hpcc_testkit.farm.worker import LABEL_VARIABLE
from hpcc_testkit.services.identity_provider import CLIENT, RealProvider, real_provider
from hpcc_testkit.services.postgres import (
    LIFE_SECONDS,
    PrivatePostgres,
    private_postgres,
)
from hpcc_testkit.services.s3_servers import BUCKET, S3Server, seaweedfs

TENANTS: Final = ("acme", "globex")
_ROLE: Final = "schedulers"
_SERVICE_SECONDS: Final = 400.0
_PROVIDER_SECONDS: Final = 300.0
_PORT_SECONDS: Final = 5.0


class ProviderThread:
    """A real provider on an event loop in a separate thread, for tests that block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready: Future[RealProvider] = Future()
        self._ended = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="provider", daemon=True)

    def __enter__(self) -> ProviderThread:
        self._thread.start()
        self.issuer = self._ready.result(_PROVIDER_SECONDS).issuer
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PROVIDER_SECONDS)

    def confirm(self, page: str, login: str) -> None:
        """Log in as `login` on the provider's pages and consent."""
        walk = self._ready.result(0).confirm(page, login)
        asyncio.run_coroutine_threadsafe(walk, self._loop).result(_PROVIDER_SECONDS)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        try:
            async with real_provider(token_seconds=1800) as provider:
                self._ready.set_result(provider)
                await self._stop.wait()
        except Exception as error:  # any failure must reach the caller that waits for the provider
            if not self._ready.done():
                self._ready.set_exception(error)
            raise


@dataclass(slots=True)
class Service:
    """One `hpcc scheduler` or `hpcc worker` process; `facts` is the line it prints when ready."""

    kind: str
    name: str
    config: Path
    environment: Mapping[str, str]
    # What is started in place of `hpcc KIND`.
    program: Sequence[str] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        port = self.facts["port"]
        assert isinstance(port, int)
        return port

    @property
    def log(self) -> Path:
        return self.config.with_suffix(".log")

    def start(self) -> None:
        """Start it and wait until it serves."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(self.program or (str(HPCC), self.kind)), "--config", str(self.config)],
                env=dict(self.environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        timer = threading.Timer(_SERVICE_SECONDS, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                facts = json.loads(line)
                if "port" in facts:
                    self.facts = facts
                    return
        finally:
            timer.cancel()
        raise AssertionError(f"{self.name} did not start:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """Kill the process at once, as a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@dataclass(frozen=True, slots=True)
class Rules:
    """What the tenants table says of a tenant; `sharing` has the lines of that section."""

    guest_reuse: str = "principal"
    sharing: str = ""


# Colleagues of acme share guests and results, and its rows say so; globex shares no guest.
RULES: Final[Mapping[str, Rules]] = {"acme": Rules("tenant"), "globex": Rules()}


@dataclass(slots=True)
class Estate:
    """The farm. `image` is a pinned reference that both workers have prepared."""

    directory: Path
    shared_cache: Path
    image: str
    postgres: PrivatePostgres
    s3: S3Server
    providers: Mapping[str, ProviderThread]
    rules: Mapping[str, Rules] = field(default_factory=lambda: RULES)
    schedulers: list[Service] = field(default_factory=list)
    workers: list[Service] = field(default_factory=list)
    people: list[Machine] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{HPCC.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.directory),
            "HPCC_DIR": str(self.directory / "operator"),
            "LC_ALL": "C.UTF-8",
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }

    def operator(self, *argv: str, check: bool = True) -> str:
        """Run an operator's command; a failure carries its output."""
        done = subprocess.run(
            [str(HPCC), *argv], env=self.environment, cwd=self.directory, text=True, timeout=300,
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{argv} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def start_schedulers(self, minimum: str) -> None:
        """Write the tenants table, migrate the database, start both replicas."""
        tenants = self.directory / "tenants.toml"
        tenants.write_text("".join(self._tenant(t, minimum) for t in TENANTS))
        owner = self.postgres.make_database("farm")
        self.postgres.sql("postgres", f"CREATE ROLE {_ROLE} LOGIN")
        seal = self.directory / "sealing.key"
        write_private_file(seal, secrets.token_urlsafe(32).encode())
        common = {"sealing_key": str(seal), "tenants": str(tenants)}
        migration = self._write("migrate", {
            **common, "keys": str(self.directory / "migrate"), "database": owner,
        })  # fmt: skip
        self.operator("scheduler", "--config", str(migration), "migrate", "--grant", _ROLE)
        database = self.postgres.url("farm", _ROLE)
        for name in ("scheduler-a", "scheduler-b"):
            keys = self.directory / name / "keys"
            config = self._write(name, {**common, "keys": str(keys), "database": database})
            service = Service("scheduler", name, config, self.environment)
            self.schedulers.append(service)
            service.start()
            self._keep_ports(service)

    def start_workers(self, stand_in: str = "", **settings: object) -> None:
        """Enrol and start both workers; results go to S3, each tenant's with its own credential.

        With `stand_in` guests are local processes that carry this label of isolation.
        """
        program = (sys.executable, "-m", "hpcc_testkit.farm.worker") if stand_in else ()
        label = {LABEL_VARIABLE: stand_in} if stand_in else {}
        for tenant in TENANTS:
            key = self.s3.keys[tenant]
            credential = asdict(key)
            path = self.directory / "s3" / f"{tenant}.json"
            write_private_file(path, json.dumps(credential).encode())
        first = self.schedulers[0]
        ports = [f"127.0.0.1:{s.facts['worker_port']}" for s in self.schedulers]
        for name in ("worker-a", "worker-b"):
            base = self.directory / name
            token = base / "enrol.token"
            text = self.operator(
                "scheduler", "--config", str(first.config), "enrol-token", "--name", name
            )
            write_private_file(token, text.encode())
            config = self._write(name, {
                "worker_id": name,
                **{d: str(base / d) for d in ("keys", "store", "audit", "state")},
                "images": str(self.shared_cache / "images"),
                "guest_assets": str(self.shared_cache / "guest"),
                "scheduler": ",".join(ports),
                "scheduler_certificate_pem": self.certificates,
                "enrol_at": f"127.0.0.1:{first.port}",
                "enrol_token_file": str(token),
                "image_digests": [self.image.partition("@")[2]],
                "stores": {
                    "kind": "s3", "endpoint": self.s3.endpoint, "bucket": BUCKET,
                    "credentials": str(self.directory / "s3" / "{tenant}.json"),
                },
                **settings,
            })  # fmt: skip
            service = Service("worker", name, config, self.environment | label, program)
            self.workers.append(service)
            service.start()

    @property
    def certificates(self) -> str:
        return "".join(str(s.facts["certificate_pem"]) for s in self.schedulers)

    def person(self, name: str, tenant: str) -> Machine:
        """Return the machine of somebody who has logged in with `hpcc login`."""
        machine = Machine(self.directory / name, self.shared_cache)
        self.people.append(machine)
        farm = machine.root / "farm.toml"
        lines = {
            "scheduler": ",".join(f"127.0.0.1:{s.port}" for s in self.schedulers),
            "tenant": tenant, "issuer": self.providers[tenant].issuer, "client_id": CLIENT,
            "image": self.image,
        }  # fmt: skip
        text = "\n".join(f'{key} = "{value}"' for key, value in lines.items())
        farm.write_text(f'{text}\nscheduler_certificate = """\n{self.certificates}"""\n')
        log_in(machine, farm, self.providers[tenant], name)
        return machine

    def close(self) -> None:
        """End all processes of the farm."""
        for machine in self.people:
            machine.close()
        for service in (*self.workers, *self.schedulers):
            service.stop()

    def leftovers(self) -> list[str]:
        """Return the processes and mounts below the farm's directory that still exist."""
        deadline = time.monotonic() + 30
        while (left := _processes_of(self.directory)) and time.monotonic() < deadline:
            time.sleep(0.1)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return [*left, *(m for m in mounts if str(self.directory) in m)]

    def _tenant(self, name: str, minimum: str) -> str:
        rules = self.rules[name]
        sharing = f"[tenants.{name}.sharing]\n{rules.sharing}\n" if rules.sharing else ""
        return (
            f"[tenants.{name}]\n"
            f'images = ["{self.image}"]\nminimum_isolation = "{minimum}"\n'
            f'guest_reuse = "{rules.guest_reuse}"\nparity = "ignore"\n'
            f"{sharing}[tenants.{name}.identity]\n"
            f'issuer = "{self.providers[name].issuer}"\n'
            f'audience = "{CLIENT}"\nclient_ids = ["{CLIENT}"]\n'
        )

    def _write(self, name: str, table: Mapping[str, object]) -> Path:
        path = self.directory / name / "service.json"
        write_private_file(path, json.dumps(table).encode())
        return path

    def _keep_ports(self, service: Service) -> None:
        """Write a scheduler's ports into its settings, so that a restart keeps its addresses."""
        table = json.loads(service.config.read_bytes())
        ports = {"port": service.port, "worker_port": service.facts["worker_port"]}
        write_private_file(service.config, json.dumps({**table, **ports}).encode())


def log_in(person: Machine, farm: Path, provider: ProviderThread, name: str) -> None:
    """Log in with a farm's file, and confirm the login at the provider as `name`."""
    with person.spawn([str(HPCC), "login", str(farm)], cwd=person.root) as login:
        assert login.stdout is not None
        said = ""
        while "or    " not in said:
            line = login.stdout.readline()
            assert line, said
            said += line
        page = re.search(r"^or    (\S+)$", said, re.MULTILINE)
        assert page is not None, said
        provider.confirm(page[1], name)
        rest, _ = login.communicate(timeout=120)
        assert login.returncode == 0, said + rest


def _processes_of(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line or f"HPCC_DIR={directory}" in environ:
            found.append(f"{entry.name} {line[:200]}")
    return found


@contextmanager
def estate(
    directory: Path,
    shared_cache: Path,
    image: str,
    *,
    rules: Mapping[str, Rules] = RULES,
    life_seconds: int = LIFE_SECONDS,
) -> Iterator[Estate]:
    """Run the farm's peers while the block runs; schedulers and workers are started by the caller.

    PostgreSQL ends after `life_seconds` in any case.
    """
    with ExitStack() as stack:
        postgres = stack.enter_context(private_postgres(life_seconds))
        s3 = stack.enter_context(seaweedfs(directory / "seaweedfs", tenants=TENANTS))
        providers = {t: stack.enter_context(ProviderThread()) for t in TENANTS}
        farm = Estate(directory, shared_cache, image, postgres, s3, providers, rules)
        stack.callback(farm.close)
        yield farm
