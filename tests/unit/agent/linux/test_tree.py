"""The agent's blob cache and trees check digests on arrival and on use, and follow no links."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.linux.links import LinkedBlobs, TreeLinks
from hpcc.agent.linux.removal import remove_tree
from hpcc.agent.linux.tree import (
    OutputTreeError,
    list_directories,
    open_listed,
    open_outputs,
    stage,
)
from hpcc.core import Digest, IntegrityError
from hpcc_testkit.guests.guest_contract import request


def put(cache: BlobCache, data: bytes) -> Digest:
    digest = Digest.of(data)
    cache.pin([digest])
    writer = cache.receive(digest)
    writer.write(data)
    writer.finish()
    writer.close()
    return digest


def copied(cache: BlobCache, digest: Digest, target: Path) -> bytes:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        cache.copy(digest, fd)
    finally:
        os.close(fd)
    return target.read_bytes()


def test_a_blob_is_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path / "b"), 100)
    digest = put(cache, b"hello")
    assert cache.pin([digest, Digest.of(b"other"), Digest.of(b"other")]) == [Digest.of(b"other")]
    assert copied(cache, digest, tmp_path / "t") == b"hello"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700


def test_wrong_bytes_are_refused_on_arrival(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path / "b"), 100)
    writer = cache.receive(Digest.of(b"right"))
    writer.write(b"wrong")
    with pytest.raises(IntegrityError):
        writer.finish()
    writer.close()
    assert list((tmp_path / "b").iterdir()) == []


def test_bytes_that_changed_are_refused_on_use(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path / "b"), 100)
    digest = put(cache, b"hello")
    (tmp_path / "b" / digest.hash).chmod(0o600)
    (tmp_path / "b" / digest.hash).write_bytes(b"hacks")
    with pytest.raises(IntegrityError):
        copied(cache, digest, tmp_path / "t")


def test_the_oldest_unused_blobs_are_evicted(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path / "b"), 25)
    digests = [put(cache, bytes([i]) * 10) for i in range(4)]
    cache.unpin(digests[1:])
    assert {p.name for p in (tmp_path / "b").iterdir()} == {digests[0].hash, digests[3].hash}
    cache.unpin(digests[:1])
    assert len(list((tmp_path / "b").iterdir())) == 2


async def test_a_tree_is_staged_with_modes_and_directories(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path / "b"), 100)
    put(cache, b"x")
    root = tmp_path / "src"
    req = request("cc", inputs=[("a/b.c", b"x")], outputs=("o/p/x.o",), cwd="w")
    await stage(str(root), req, TreeLinks(LinkedBlobs(cache)), os.getuid())
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == [
        "a",
        "a/b.c",
        "o",
        "o/p",
        "w",
    ]
    assert (root / "a/b.c").stat().st_mode & 0o777 == 0o444


def test_links_fifos_and_directories_are_no_outputs(tmp_path: Path) -> None:
    root = tmp_path / "src"
    (root / "real").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("s")
    (root / "ok").write_text("data")
    (root / "link").symlink_to(secret)
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "fifo")
    names = ("ok", "link", "linked/secret", "fifo", "real", "absent", "ok/below")
    found = open_outputs(str(root), names)
    assert [(o.path, o.size_bytes) for o in found] == [("ok", 4)]
    for output in found:
        os.close(output.fd)


def test_a_tree_deeper_than_descriptors_and_paths_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "x0"
    root.mkdir()
    (tmp_path / "kept").write_text("not below")
    (root / "link").symlink_to(tmp_path)
    at = os.open(root, os.O_RDONLY)
    for number in range(1200):
        os.mkdir("d", dir_fd=at)
        if number % 7 == 0:
            os.mkdir("e", dir_fd=at)
            os.symlink("/", "up", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Earlier tests may have left many open.
    open_now = max(int(number) for number in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 64, limits[1]))
    try:
        remove_tree(str(root))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_an_output_directory_is_listed_parents_first(tmp_path: Path) -> None:
    (tmp_path / "d/x").mkdir(parents=True)
    (tmp_path / "d/x/a").write_bytes(b"abc")
    (tmp_path / "d/x/a").chmod(0o755)
    (tmp_path / "file").touch()
    found = list_directories(str(tmp_path), ("d", "absent", "file"))
    assert [o.path for o in found] == ["d/", "d/x/", "d/x/a"]
    assert (found[2].size_bytes, found[2].is_executable, found[2].fd) == (3, True, -1)
    fd = open_listed(str(tmp_path), found[2])
    assert os.read(fd, 10) == b"abc"
    os.close(fd)


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "socket", "bytes", "deep", "many"])
def test_what_an_output_directory_cannot_hold_is_said(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    match kind:
        case "link":
            (directory / "l").symlink_to("/etc/passwd")
        case "dangling":
            (directory / "l").symlink_to("nowhere")
        case "fifo":
            os.mkfifo(directory / "f")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(directory / "s"))
        case "bytes":
            os.close(os.open(os.fsencode(directory) + b"/\xff", os.O_CREAT | os.O_WRONLY))
        case "deep":
            (directory / "/".join(["x"] * 70)).mkdir(parents=True)
        case _:
            for number in range(10_001):
                (directory / str(number)).touch()
    with pytest.raises(OutputTreeError):
        list_directories(str(tmp_path), ("d",))


def test_an_output_directory_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").symlink_to("/etc")
    (tmp_path / "e").symlink_to("/")
    assert list_directories(str(tmp_path), ("d", "e/etc")) == []
