"""The worker's process in a CPython for Windows under Wine, up to where it needs containerd."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hpcc.config.private_file import write_private_file
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.worker_ca import WorkerCa, new_worker_key, read_request
from hpcc.ports import SystemClock
from hpcc.runtime.windows.layers.layer import build_windows_layer
from hpcc.worker.base.identity import IDENTITY_NAME
from hpcc_testkit.cache.launcher import ROOT
from hpcc_testkit.windows.agent import drive_c, windows_packages, windows_python
from hpcc_testkit.windows.wine import Wine

pytestmark = pytest.mark.timeout(300)
_DIRECTORIES = ("keys", "store", "audit", "images", "guest_assets", "state")
# Locks, rights, errors, and a trail that is sealed by a rename of its open file.
_FILES = r"""
import asyncio, os, sys
from pathlib import Path
from dataclasses import dataclass
from hpcc.audit.log import open_audit_log
from hpcc.config.service_file import load_service_file
from hpcc.core import CallerError, InfrastructureError
from hpcc.files import access_of, lock_now, open_file
from hpcc.identity.keys import load_or_create_signing_key
from hpcc.ports import SecurityEvent, SystemClock

@dataclass
class Config:
    worker_id: str

home = Path(sys.argv[1])
first = open_file(home / "lock", os.O_RDWR | os.O_CREAT)
assert access_of(first) == (True, True, True), access_of(first)
os.write(first, b"holder\n")
lock_now(first)
second = open_file(home / "lock", os.O_RDWR | os.O_CREAT)
for exclusive in (True, False):
    try:
        lock_now(second, exclusive=exclusive)
    except BlockingIOError:
        continue
    raise AssertionError("locked twice")
assert os.read(second, 99) == b"holder\n"  # a lock keeps nobody from reading
os.close(first)
lock_now(second, exclusive=False)
third = open_file(home / "lock", os.O_RDONLY)
lock_now(third, exclusive=False)
(home / "lock").rename(home / "renamed")  # while it is open
try:
    load_service_file(home / "worker.json", Config)  # which the test has opened to others
except CallerError as error:
    assert "others can read" in str(error) and "icacls" in str(error), error
else:
    raise AssertionError("it was read")
for path, flags, error in (
    (home / "renamed", os.O_WRONLY | os.O_CREAT | os.O_EXCL, FileExistsError),
    (home / "absent", os.O_RDONLY, FileNotFoundError),
):
    try:
        open_file(path, flags)
    except error:
        continue
    raise AssertionError(path)

async def trail():
    key, clock = load_or_create_signing_key(home / "key"), SystemClock()
    async with open_audit_log(home / "trail", worker="w", key=key, clock=clock) as log:
        for number in range(3):
            await log.event(SecurityEvent(name=f"e{number}", at=1.0, fields=()))
            await log.seal()
        try:
            async with open_audit_log(home / "trail", worker="w", key=key, clock=clock):
                pass
        except InfrastructureError as error:
            assert error.reason == "audit-locked", error
        else:
            raise AssertionError("opened twice")
    async with open_audit_log(home / "trail", worker="w", key=key, clock=clock) as log:
        await log.event(SecurityEvent(name="last", at=1.0, fields=()))

asyncio.run(trail())
names = sorted(path.name for path in (home / "trail").iterdir())
assert len([name for name in names if name.endswith(".seal")]) == 3, names
"""


class Host:
    """A Windows prefix with hpcc, its packages, and a worker's directory."""

    def __init__(self, wine: Wine, directory: Path) -> None:
        self.wine, self.directory = wine, directory
        self.home = drive_c(wine) / "hpcc-worker"

    def python(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        program = self.directory / "python/python.exe"
        return self.wine.run(program, "-B", *arguments, cwd=self.directory)

    def work(self) -> subprocess.CompletedProcess[bytes]:
        return self.python("-m", "hpcc.worker", "--config", "C:\\hpcc-worker\\worker.json")


@pytest.fixture
def host(wine: Wine, tmp_path: Path) -> Host:
    for found in (windows_python(), windows_packages()):
        assert found.is_dir(), "tools/bootstrap.sh windows-python"
    shutil.copytree(windows_python(), tmp_path / "python")
    lines = ["Z:" + str(path).replace("/", "\\") for path in (ROOT / "src", windows_packages())]
    (tmp_path / "python/python313._pth").write_text("\n".join(["python313.zip", ".", *lines]))
    made = Host(wine, tmp_path)
    shutil.rmtree(made.home, ignore_errors=True)
    scheduler = load_or_create_tls(tmp_path, "scheduler", clock=SystemClock())
    config: dict[str, object] = {name: f"C:\\hpcc-worker\\{name}" for name in _DIRECTORIES}
    config |= {
        "worker_id": "win-1", "scheduler": "127.0.0.1:1", "memory_mib": 16384,
        "scheduler_certificate_pem": scheduler.certificate_pem.decode(),
        "image_digests": ["sha256:" + "a" * 64],
    }  # fmt: skip
    write_private_file(made.home / "worker.json", json.dumps(config).encode())
    key, request = new_worker_key()
    certificate = WorkerCa.new(time.time()).issue(
        read_request(request), "win-1", time.time(), 3600.0
    )
    write_private_file(made.home / "keys" / IDENTITY_NAME, key + certificate)
    layer = build_windows_layer({"hpcc-agent.exe": b"MZ"})
    write_private_file(made.home / "guest_assets/windows-agent.tar", layer.tar)
    return made


def test_a_worker_opens_all_that_it_has_and_then_asks_for_containerd(host: Host) -> None:
    done = host.work()
    assert (done.returncode, done.stdout.count(b"\n")) == (1, 1), done
    assert b"containerd does not listen on \\\\.\\pipe\\containerd-containerd" in done.stderr
    found = {path.name for path in (host.home / "audit").iterdir()}
    assert found == {"lock", "signer", "spool.hpcc", "tree-0", "tree.head"}
    assert (host.home / "keys/audit-signing.key").read_bytes().startswith(b"-----BEGIN")


def test_files_are_locked_private_and_renamed_as_on_linux(host: Host) -> None:
    (host.directory / "files.py").write_text(_FILES)
    (host.home / "worker.json").chmod(0o644)
    done = host.python("files.py", "C:\\hpcc-worker")
    assert done.returncode == 0, done.stderr.decode()
