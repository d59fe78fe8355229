"""What an image builder that a layer took over can reach: its layers, its output, and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# The attack runs after the builder's own confinement, in a process like the builder's.
TAKEN_OVER = """
import encodings.idna, json, os, signal, socket, subprocess, sys
from pathlib import Path
from hpcc.images.assembly.builder import BuildRequest, _readable
from hpcc.images.assembly.confine import confine

request = BuildRequest.from_json(sys.argv[1])
secret, port, parent = Path(sys.argv[2]), int(sys.argv[3]), os.getppid()
has_landlock = confine(
    readable=_readable(request), writable=[request.output.parent, Path(os.devnull)]
)
found = ["landlock"] if has_landlock else []

def attempt(name, attack):
    try:
        attack()
    except (OSError, subprocess.CalledProcessError):
        return
    found.append(name)

attempt("reads a secret", lambda: secret.read_text())
attempt("lists a home", lambda: os.listdir(secret.parent))
attempt("reads /etc/shadow", lambda: open("/etc/shadow").read())
attempt("reads the parent", lambda: open(f"/proc/{parent}/environ").read())
attempt("writes elsewhere", lambda: secret.write_text("x"))
attempt("writes a layer", lambda: request.layers[0].path.write_bytes(b"x"))
attempt("replaces a program", lambda: open(sys.executable, "r+b"))
attempt("connects", lambda: socket.create_connection(("127.0.0.1", port), 5))
attempt("signals its parent", lambda: os.kill(parent, signal.SIGCONT))
attempt("mounts", lambda: os.unshare(os.CLONE_NEWNS))
attempt("does so in a child", lambda: subprocess.run(["cat", secret], check=True, stderr=-3))
# What it needs still works.
attempt("layer", lambda: request.layers[0].path.read_bytes())
attempt("output", lambda: request.output.write_bytes(b"image"))
attempt("tool", lambda: subprocess.run([request.mkfs, "--help"], check=True, stdout=-3, stderr=-3))
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_a_builder_that_was_taken_over_reaches_its_layers_and_its_output_only(
    tmp_path: Path,
) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    store.mkdir()
    home.mkdir()
    (layer := tmp_path / "layer").write_bytes(b"hostile")
    (secret := home / "secret").write_text("of the worker")
    request = {
        "layers": [[str(layer), f"{'0' * 64}/7"]], "output": str(store / "image.partial"),
        "uuid": "u", "mkfs": "/usr/bin/true", "limits": {},
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [json.dumps(request), str(secret), str(listener.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-c", TAKEN_OVER, *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == ""
    assert json.loads(done.stdout) == ["landlock", "layer", "output", "tool"]
    assert secret.read_text() == "of the worker"
    assert layer.read_bytes() == b"hostile"
    assert os.listdir(store) == ["image.partial"]
