"""Two real S3 servers that tests start on loopback: SeaweedFS, and Ceph's radosgw on SQLite.

SeaweedFS has identities whose rights end at a prefix. radosgw silently ignores `If-None-Match`, so
no code may depend on a conditional write. Both start in a few seconds and are ended by pid. Use the
context managers `seaweedfs` and `radosgw`; each has a function that returns the reason to skip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from hpcc_testkit.services.s3_signing import S3Key, signed_headers
from hpcc_testkit.services.server_certificate import ServerFiles

SEAWEED_VERSION: Final = "4.48"
BUCKET: Final = "hpcc"
ADMIN: Final = S3Key("admin", "not a secret: of a server that lives for one test")
_START_SECONDS: Final = 60.0
# A start takes a fifth of a second, but sometimes it hangs forever.
_RGW_SECONDS: Final = 6.0
# A port that the kernel named may be taken before the server binds it, and then it may hang.
_ATTEMPTS: Final = 8


def weed_path() -> Path:
    """Return where `tools/bootstrap.sh seaweedfs` puts the program."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", f"seaweedfs-{SEAWEED_VERSION}", "weed")


def seaweedfs_missing_or_none() -> str | None:
    """Return what this machine lacks to run SeaweedFS, or None."""
    return None if weed_path().is_file() else "no SeaweedFS: tools/bootstrap.sh seaweedfs"


def radosgw_missing_or_none() -> str | None:
    """Return what this machine lacks to run radosgw, or None."""
    found = shutil.which("radosgw") and shutil.which("radosgw-admin")
    return None if found else "no radosgw: tools/bootstrap.sh packages test"


def tenant_key(tenant: str) -> S3Key:
    """Return the credential that a test server gives this tenant."""
    return S3Key(f"key-{tenant}", f"not a secret: {tenant} at a test server")


@dataclass(slots=True)
class S3Server:
    """A running server.

    With SeaweedFS a tenant may use only `BUCKET/<tenant>/*`. With radosgw each tenant owns
    the bucket with its name, and the admin owns `BUCKET`.
    """

    kind: str
    endpoint: str
    keys: Mapping[str, S3Key]
    process: subprocess.Popen[bytes] = field(repr=False)
    _start: Callable[[], subprocess.Popen[bytes]] = field(repr=False)
    ca_file: Path | None = None

    def kill(self) -> None:
        """Kill the server at once, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def stall(self) -> None:
        """Suspend the process: connections stay open and get no answer."""
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        _until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def resume(self) -> None:
        """Continue a stalled server."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start the server again with the same port and data."""
        for attempt in range(_ATTEMPTS):
            self.process = self._start()
            if _wait_ready(self, is_last=attempt == _ATTEMPTS - 1):
                break
            self.kill()
        self.wait_usable()

    def wait_usable(self) -> None:
        """Wait until a put works; SeaweedFS answers before its parts have found each other."""
        probe = f"/{BUCKET}/.probe"
        _until(lambda: self.request("PUT", probe, body=b"probe").status_code == httpx.codes.OK)

    def list_keys(self, prefix: str) -> list[str]:
        """Return the names of all objects of `BUCKET` that begin with `prefix`, in their order."""
        found: list[str] = []
        while True:
            after = f"&start-after={quote(found[-1], safe='')}" if found else ""
            query = f"list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}{after}"
            page = self.request("GET", f"/{BUCKET}?{query}").text
            found += (more := [unescape(k) for k in re.findall(r"<Key>([^<]+)</Key>", page)])
            if not more or "<IsTruncated>true" not in page:
                return found

    def request(
        self,
        method: str,
        path: str,
        *,
        key: S3Key = ADMIN,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send one signed request; `path` starts with "/" and may hold a query."""
        url = self.endpoint + path
        signed = signed_headers(key, method, url, body, headers)
        verify = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else True
        with httpx.Client(trust_env=False, timeout=60, verify=verify) as client:
            return client.request(method, url, content=body, headers=signed)

    def make_bucket(self, name: str, *, key: S3Key = ADMIN, object_lock: bool = False) -> None:
        """Create a bucket owned by `key`; with `object_lock` its objects can be retained."""
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if object_lock else {}
        answer = self.request("PUT", f"/{name}", key=key, headers=headers)
        assert answer.status_code == httpx.codes.OK, answer.text


@contextmanager
def seaweedfs(
    directory: Path,
    *,
    tenants: tuple[str, ...] = ("acme", "globex"),
    tls: ServerFiles | None = None,
) -> Iterator[S3Server]:
    """Run SeaweedFS with its data in `directory` (empty or absent) and `BUCKET` in it."""
    directory.mkdir(parents=True, exist_ok=True)
    keys = {tenant: tenant_key(tenant) for tenant in tenants}
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": _seaweed_identities(keys)}))

    def command(ports: list[int]) -> list[str]:
        names = ("master", "volume", "filer", "s3")
        pairs = zip(names, ports[::2], ports[1::2], strict=True)
        flags = [f"-{n}.port{k}={p}" for n, a, b in pairs for k, p in (("", a), (".grpc", b))]
        if tls is not None:
            # With both ports the server would answer without TLS on the first.
            flags += [f"-s3.cert.file={tls.certificate}", f"-s3.key.file={tls.key}"]
        # fmt: off
        return [
            str(weed_path()), "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-master.resumeState=false",
            "-master.volumeSizeLimitMB=64", "-volume.max=64", "-volume.preStopSeconds=0", "-s3",
            f"-s3.config={config}", "-s3.port.iceberg=0",
            "-s3.port.lance=0", f"-filer.localSocket={directory}/filer.sock",
            f"-s3.localSocket={directory}/s3.sock", *flags,
        ]
        # fmt: on

    with _running("seaweedfs", directory, command, 8, keys, tls) as server:
        _until(lambda: server.request("PUT", f"/{BUCKET}").status_code == httpx.codes.OK)
        server.wait_usable()
        yield server


def _seaweed_identities(keys: Mapping[str, S3Key]) -> list[dict[str, object]]:
    def identity(name: str, key: S3Key, actions: list[str]) -> dict[str, object]:
        credential = {"accessKey": key.access_key_id, "secretKey": key.secret_access_key}
        return {"name": name, "credentials": [credential], "actions": actions}

    return [
        identity("admin", ADMIN, ["Admin", "Read", "Write", "List", "Tagging"]),
        *(
            identity(
                name, key, [f"{right}:{BUCKET}/{name}/*" for right in ("Read", "Write", "List")]
            )
            for name, key in keys.items()
        ),
    ]


_CEPH_CONF: Final = """[global]
fsid = 00000000-0000-4000-8000-000000000001
auth_client_required = none
auth_cluster_required = none
auth_service_required = none
rgw_backend_store = dbstore
dbstore_db_dir = {directory}/db
dbstore_db_name_prefix = hpcc
rgw_config_store = dbstore
dbstore_config_uri = file:{directory}/config.db
rgw_data = {directory}/data
run_dir = {directory}/run
admin_socket =
log_file = {directory}/log
rgw_thread_pool_size = 32
rgw_frontends = beast {frontend}
"""


@contextmanager
def radosgw(
    directory: Path,
    *,
    tenants: tuple[str, ...] = ("acme", "globex"),
    tls: ServerFiles | None = None,
) -> Iterator[S3Server]:
    """Run radosgw with its data in `directory` (empty or absent), `BUCKET` and tenants' buckets."""
    for name in ("db", "data", "run"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    keys = {tenant: tenant_key(tenant) for tenant in tenants}
    conf = directory / "ceph.conf"
    common = ["-c", str(conf), "-n", "client.rgw.hpcc", "--no-mon-config"]

    def configure(port: int) -> None:
        frontend = f"endpoint=127.0.0.1:{port}"
        if tls is not None:
            frontend = (
                f"ssl_endpoint=127.0.0.1:{port} ssl_certificate={tls.certificate} "
                f"ssl_private_key={tls.key}"
            )
        conf.write_text(_CEPH_CONF.format(directory=directory, frontend=frontend))

    configure(0)
    for name, key in {"admin": ADMIN, **keys}.items():
        _make_user(common, name, key)

    def command(ports: list[int]) -> list[str]:
        configure(ports[0])
        return ["radosgw", *common, "-f"]

    with _running("radosgw", directory, command, 1, keys, tls) as server:
        server.make_bucket(BUCKET)
        for tenant, key in keys.items():
            server.make_bucket(tenant, key=key)
        yield server


def _make_user(common: list[str], name: str, key: S3Key) -> None:
    # fmt: off
    argv = [
        "radosgw-admin", *common, "user", "create", f"--uid={name}", f"--display-name={name}",
        f"--access-key={key.access_key_id}", f"--secret-key={key.secret_access_key}",
    ]
    # fmt: on
    for _ in range(_ATTEMPTS):
        try:
            done = subprocess.run(argv, check=False, capture_output=True, timeout=_RGW_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        assert done.returncode == 0 or b"exists" in done.stderr, done.stderr
        return
    raise AssertionError("radosgw-admin hangs")


@contextmanager
def _running(
    kind: str,
    directory: Path,
    command: Callable[[list[int]], list[str]],
    ports: int,
    keys: Mapping[str, S3Key],
    tls: ServerFiles | None,
) -> Iterator[S3Server]:
    for attempt in range(_ATTEMPTS):
        chosen = free_ports(ports)
        argv = command(chosen)

        def start(argv: list[str] = argv) -> subprocess.Popen[bytes]:
            # The server dies with the test process, even if that is killed.
            with (directory / "output").open("ab") as output:
                return subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=directory,
                    env={"PATH": os.environ["PATH"], "HOME": str(directory)},
                )

        port = chosen[0] if kind == "radosgw" else chosen[-2]
        scheme = "https" if tls else "http"
        ca = tls.ca if tls else None
        endpoint = f"{scheme}://127.0.0.1:{port}"
        server = S3Server(kind, endpoint, keys, start(), start, ca)
        try:
            if _wait_ready(server, is_last=attempt == _ATTEMPTS - 1):
                yield server
                return
        finally:
            server.kill()


def _wait_ready(server: S3Server, *, is_last: bool) -> bool:
    """Wait until the server answers; return False if it does not and another attempt is left."""
    seconds = _RGW_SECONDS if server.kind == "radosgw" and not is_last else _START_SECONDS
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            assert not is_last, f"{server.kind} ended with {server.process.returncode}"
            return False
        try:
            server.request("GET", "/")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return True
    assert not is_last, f"{server.kind} did not answer within {_START_SECONDS:g} s"
    return False


def _until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "the server is up and does not do what is asked"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now; the kernel chooses."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
