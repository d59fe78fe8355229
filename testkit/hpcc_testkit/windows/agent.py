"""The shipped Windows agent under Wine: CPython for Windows, and TCP in place of HvSocket.

`install_agent` installs it into a Wine prefix, `running_agent` starts it.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Final

from hpcc.runtime.windows.agent import build_agent_layer
from hpcc_testkit.windows.wine import Wine

WINDOWS_PYTHON_VERSION: Final = "3.13.2"
_DRIVER: Final = r"""
import asyncio, os, socket, sys
home = r"C:\.hpcc"
sys.argv[0] = home + r"\app.pyz"
sys.path.insert(0, sys.argv[0])
from hpcc.agent.windows import main as agent
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
with asyncio.Runner(loop_factory=agent.new_loop) as runner:
    accept = lambda: asyncio.to_thread(agent.take_host, listener)
    runner.run(agent.serve(accept, agent._machine()))
print("over", flush=True)
"""


def windows_python() -> Path:
    """Return where `tools/bootstrap.sh windows-python` puts CPython's embeddable package."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", f"windows-python-{WINDOWS_PYTHON_VERSION}")


def windows_packages() -> Path:
    """Return where it puts the packages of requirements.lock, from wheels for Windows."""
    return windows_python().with_name("windows-packages")


def embeddable_package() -> bytes:
    """Return CPython's embeddable package as an archive, the form in which it is published."""
    directory = windows_python()
    assert directory.is_dir(), "no CPython for Windows: tools/bootstrap.sh windows-python"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(directory.iterdir()):
            archive.write(path, path.name)
    return out.getvalue()


def drive_c(wine: Wine) -> Path:
    """Return the directory that is `C:` in the prefix."""
    return Path(wine.env["WINEPREFIX"], "drive_c")


def install_agent(wine: Wine, stub: Path) -> Path:
    r"""Unpack the agent's layer into `C:\`, as an import would; return `C:\.hpcc`."""
    package = embeddable_package()
    layer = build_agent_layer(stub.read_bytes(), package, sha256(package).hexdigest())
    target = drive_c(wine)
    with tarfile.open(fileobj=io.BytesIO(layer.tar)) as archive:
        for member in archive.getmembers():
            member.name = member.name.removeprefix("Files/")
            if member.name.startswith(".hpcc"):
                archive.extract(member, target, filter="data")
    return target / ".hpcc"


@contextmanager
def running_agent(wine: Wine, home: Path) -> Iterator[socket.socket]:
    """Start the installed agent and yield the one connection to it.

    All of its program runs except `listen`, because Wine has no Hyper-V sockets.
    """
    shutil.rmtree(drive_c(wine) / ".hpcc-work", ignore_errors=True)
    driver = home / "driver.py"
    driver.write_text(_DRIVER)
    python = home / "python/python.exe"
    with wine.start(python, "-I", "-B", "-u", "C:\\.hpcc\\driver.py", cwd=home) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.strip().isdigit(), process.communicate(timeout=60)
            with socket.create_connection(("127.0.0.1", int(line))) as connection:
                # A warden's filter does not allow TCP, because guests do not use it.
                host, inner = socket.socketpair()
                pumps = [
                    Thread(target=_pump, args=pair)
                    for pair in ((connection, inner), (inner, connection))
                ]
                for pump in pumps:
                    pump.start()
                with inner:
                    with host:
                        yield host
                    for pump in pumps:
                        pump.join(60)
            assert process.stdout.read().split() == [b"over"]
            assert process.wait(60) == 0
        finally:
            process.kill()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
