"""A guest reports the file that it lacks; files that a hostile guest names are never sent."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc.compilers.scan.missing_includes import missing_includes
from hpcc.core import RemoteOutcome, RemoteRequest, RemoteResult
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote

_ARGV = ("gcc", "-Icfg", "-c", "src/sdk.c", "-o", "out.o")


class ImageWithSdk(FakeRemote):
    """A guest whose image has headers that this machine lacks."""

    def __init__(self, sdk: Path) -> None:
        super().__init__()
        self._sdk = sdk

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        argv = (*request.argv, "-idirafter", str(self._sdk))
        outcome = super().compile(dataclasses.replace(request, argv=argv), is_cancelled)
        self.requests[-1] = request
        return outcome


class HostileGuest(FakeRemote):
    """A guest that fails each compile with the text of `stderr`."""

    stderr = b""

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        outcome = super().compile(request, is_cancelled)
        assert isinstance(outcome, RemoteResult)
        return dataclasses.replace(outcome, exit_code=1, stderr=self.stderr)


@pytest.fixture
def sdk(tmp_path: Path) -> Path:
    directory = tmp_path / "image" / "include"
    directory.mkdir(parents=True)
    (directory / "sdk.h").write_text("#include <sdk_config.h>\nint value = SDK + DEEP;\n")
    return directory


def _paths(request: RemoteRequest) -> list[str]:
    return [item.path for item in request.inputs]


def test_a_file_that_only_the_images_headers_name_is_added_and_remembered(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, project: Any, sdk: Path
) -> None:
    remote = ImageWithSdk(sdk)
    launcher.handler = cache = make_cache(remote)
    project.write("src/sdk.c", "#include <sdk.h>\n")
    project.write("cfg/sdk_config.h", '#define SDK 1\n#include "deep.h"\n')
    project.write("cfg/deep.h", "#define DEEP 2\n")
    project.settle()
    assert launcher.compile(*_ARGV).answer == "done"
    assert [_paths(r) for r in remote.requests] == [
        ["src/sdk.c"],
        ["cfg/deep.h", "cfg/sdk_config.h", "src/sdk.c"],
    ]
    assert cache.counters()["closure.completed"] == 1
    project.write("cfg/deep.h", "#define DEEP 3\n")
    project.settle()
    assert launcher.compile(*_ARGV).answer == "done"
    assert len(remote.requests) == 3
    assert "cfg/sdk_config.h" in _paths(remote.requests[2])
    assert cache.counters()["miss.remote.executed"] == 2


def test_a_second_missing_file_is_not_asked_for_in_the_same_compile(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, project: Any, sdk: Path
) -> None:
    remote = ImageWithSdk(sdk)
    launcher.handler = cache = make_cache(remote)
    (sdk / "sdk.h").write_text("#include <one.h>\n#include <two.h>\n")
    project.write("src/sdk.c", "#if __has_include(<sdk.h>)\n#include <sdk.h>\n#endif\n")
    project.write("cfg/one.h", "")
    project.write("cfg/two.h", "")
    project.settle()
    assert launcher.compile(*_ARGV).answer == "run"
    assert len(remote.requests) == 2
    assert cache.counters()["fallback.exit-code"] == 1


_SECRET = "SECRET"
_ATTACKS = {
    "outside-by-dots": "../outside.h",
    "outside-by-dots-within": "cfg/../../outside.h",
    "absolute": "{root}/src/plain.h",
    "system-file": "/etc/passwd",
    "hidden-file": ".env",
    "hidden-header": ".secret.h",
    "in-git": ".git/config",
    "in-git-as-a-header": ".git/hook.h",
    "hidden-by-a-link": "innocent.h",
    "outside-by-a-link": "away.h",
    "outside-by-a-directory-link": "gone/outside.h",
    "key-file": "server.pem",
    "no-suffix": "id_rsa",
    "directory": "folder.h",
    "device": "pipe.h",
    "excluded-by-the-marker": "private/plan.h",
    "huge": "huge.h",
    "with-a-line-break": "a\nsrc/plain.h",
    "with-a-zero-byte": "plain.h\0",
}


@pytest.mark.parametrize(
    ("attack", "words"), [*((attack, "gcc") for attack in _ATTACKS), ("hidden-header", "clang")]
)
def test_a_hostile_guest_cannot_make_the_client_send(  # the rest of the name is the attack
    attack: str, words: str, make_cache: Callable[..., Cache], launcher: FakeLauncher, project: Any
) -> None:
    root: Path = launcher.cwd
    remote = HostileGuest()
    launcher.handler = cache = make_cache(remote)
    _plant_secrets(root, project)
    name = _ATTACKS[attack].format(root=root)
    said = f"'{name}' file not found" if words == "clang" else f"{name}: No such file or directory"
    remote.stderr = f"src/main.c:1:10: fatal error: {said}\n".encode()
    launcher.compile("gcc", "-I.", "-Iinc", "-c", "src/main.c", "-o", "out.o")
    sent = {path for request in remote.requests for path in _paths(request)}
    assert sent == {"src/main.c", "src/util.h", "src/deep/inner.h", "inc/conf.h"}
    assert len(remote.requests) == 1
    assert cache.counters()["fallback.exit-code"] == 1


def _plant_secrets(root: Path, project: Any) -> None:
    (root / ".hpcc").write_text('exclude = ["private"]\n')
    (root.parent / "outside.h").write_text(_SECRET)
    project.write("src/plain.h", "")
    for name in (
        ".env", ".secret.h", ".git/config", ".git/hook.h", "server.pem", "id_rsa", "private/plan.h",
    ):  # fmt: skip
        project.write(name, _SECRET)
    (root / "innocent.h").symlink_to(".git/config")
    (root / "away.h").symlink_to(root.parent / "outside.h")
    (root / "gone").symlink_to(root.parent)
    (root / "folder.h").mkdir()
    with (root / "huge.h").open("wb") as file:
        file.truncate(64 << 20)
    os.mkfifo(root / "pipe.h")
    project.settle()


def test_a_guest_may_ask_for_a_plain_header_by_the_same_words(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, project: Any
) -> None:
    """Otherwise the attacks above could be refused for another reason."""
    remote = HostileGuest()
    launcher.handler = make_cache(remote)
    _plant_secrets(launcher.cwd, project)
    remote.stderr = b"src/main.c:1:10: fatal error: plain.h: No such file or directory\n"
    launcher.compile("gcc", "-I.", "-Iinc", "-c", "src/main.c", "-o", "out.o")
    assert "src/plain.h" in _paths(remote.requests[1])


@pytest.mark.parametrize(
    "stderr",
    [
        b"",
        b"src/main.c:1:10: fatal error: plain.h: Permission denied\n",
        b"src/main.c:1:10: Fataler Fehler: plain.h: Datei nicht gefunden\n",
        b"note: src/main.c:1: warning: plain.h: No such file or directory\n",
        b"src/main.c:1:10: fatal error: " + b"a" * 5000 + b".h: No such file or directory\n",
        b"x" * 70_000 + b"\nsrc/main.c:1:10: fatal error: plain.h: No such file or directory\n",
    ],
)
def test_other_words_name_nothing(stderr: bytes) -> None:
    assert missing_includes(stderr) == ()


def test_colours_do_not_hide_a_name() -> None:
    said = (
        b"\x1b[01m\x1b[Ksrc/main.c:1:10:\x1b[m\x1b[K \x1b[01;31m\x1b[Kfatal error: \x1b[m\x1b[K"
        b"plain.h: No such file or directory\n"
    )
    assert [(w.name, w.at) for w in missing_includes(said)] == [(b"plain.h", b"src/main.c")]


def test_a_flood_of_names_is_cut() -> None:
    said = b"".join(
        b"a.c:1:1: fatal error: n%d.h: No such file or directory\n" % i for i in range(100)
    )
    assert len(missing_includes(said)) <= 4
