"""What an image builder that a layer took over can reach: its layers, its output, and nothing else.

And what it can answer, or leave in its output's place: nothing that a worker opens for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpcc.core import HpccError, ImageDigest, ImageRef, InfrastructureError, IntegrityError
from hpcc.images.assembly import erofs
from hpcc.images.oci.layout import OciLayout
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock
from hpcc_testkit.guests.images import Item, make_image, tar_bytes

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


# A builder that was taken over. What is left in place of the image, and what it answers.
LEAVES = """
import hashlib, json, os, sys
request = json.loads(sys.stdin.readline())
output, secret, kind = request["output"], sys.argv[1], sys.argv[2]
data = open(secret, "rb").read()
if kind == "link":
    os.symlink(secret, output)
elif kind == "fifo":
    os.mkfifo(output)
elif kind == "directory":
    os.mkdir(output)
else:
    open(output, "wb").write(data)
answer = sys.argv[3] if len(sys.argv) > 3 else json.dumps({"result": {
    "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "report": {"dropped": []}}})
print(answer, flush=True)
"""


async def prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *answer: str
) -> Path:
    """Let such a builder make an image; return the path that a worker would open."""
    (secret := tmp_path / "secret").write_bytes(b"k" * 4096)
    shutil.rmtree(tmp_path / "layout", ignore_errors=True)
    argv = (sys.executable, "-c", LEAVES, str(secret), kind, *answer)
    monkeypatch.setattr(erofs, "BUILDER_ARGV", argv)
    image = make_image([tar_bytes([Item("bin/cc", text="1")])])
    layout = OciLayout(image.write_layout(tmp_path / "layout"))
    store = ImageStore(tmp_path / "store", SystemClock())
    async with asyncio.timeout(60):
        found = await store.prepare(ImageRef("localhost/t", image.digest), layout)
    return found.path


async def test_a_builder_that_was_taken_over_leaves_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await prepared(tmp_path, monkeypatch, "file")).read_bytes() == b"k" * 4096


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
async def test_a_builder_that_was_taken_over_makes_the_worker_open_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The worker would give what a link leads to, its keys perhaps, to a guest as its drive."""
    with pytest.raises(HpccError):
        await prepared(tmp_path, monkeypatch, kind)
    assert (tmp_path / "secret").read_bytes() == b"k" * 4096
    assert list((tmp_path / "store/prepared").iterdir()) == []
    # And the next builder is not held up by what was left.
    assert (await prepared(tmp_path, monkeypatch, "file")).is_file()


async def test_an_image_that_became_a_link_or_was_edited_under_its_stat_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the builder's that went on has the image open."""
    path = await prepared(tmp_path, monkeypatch, "file")
    digest = ImageDigest(f"sha256:{path.name.partition('.')[0]}")
    store = ImageStore(tmp_path / "store", SystemClock())
    assert store.get(digest) is not None
    before = path.stat()
    path.write_bytes(b"e" * 4096)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.get(digest) is None
    path = await prepared(tmp_path, monkeypatch, "file")
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    assert ImageStore(tmp_path / "store", SystemClock()).get(digest) is None


@pytest.mark.parametrize(
    "answer",
    [
        "[]", "7", '"done"', "{}", "not json", "[" * 100_000, "9" * 5000, '{"done": {}}',
        '{"result": 1}', '{"result": {"size_bytes": "1", "sha256": "x", "report": {}}}',
        '{"result": {"size_bytes": 4096, "sha256": 5, "report": {"dropped": []}}}',
        '{"result": {"size_bytes": 4096, "sha256": "00", "report": {"dropped": [[1, {}]]}}}',
        '{"result": {"size_bytes": 4096, "sha256": "00", "report": {"dropped": [], "files": []}}}',
        '{"error": {}, "message": [], "reason": 1}', '{"error": "no-such-family"}',
        '{"error": "integrity", "message": "\\u001b]0;x", "reason": "\\u001b[2J"}',
    ],
)  # fmt: skip
async def test_what_a_builder_that_was_taken_over_answers_is_an_error_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with pytest.raises((IntegrityError, InfrastructureError)) as caught:
        await prepared(tmp_path, monkeypatch, "file", answer)
    assert str(caught.value).isprintable()
    assert caught.value.reason.replace("-", "").isalnum()
