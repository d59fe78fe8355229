"""`hpcc cache …` with the real launcher and daemons: keygen, trust, flush, status, revoke."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon
from hpcc_testkit.services.object_server import ObjectServer, object_server

from .conftest import FILES, MAIN, OTHER

pytestmark = pytest.mark.timeout(300)
_LONG_AGO = 3600


@dataclass(slots=True)
class Person:
    """Somebody with a checkout, settings and a daemon."""

    root: Path
    env: dict[str, str]

    def hpcc(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            ["hpcc", *words], cwd=self.root, env=self.env, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL, timeout=100,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def configure(self, **fields: object) -> None:
        """Write hpcc.toml; the daemon reads it when it starts."""
        stop_daemon(self.env)
        directory = Path(self.env["HPCC_DIR"]) / "config"
        directory.mkdir(parents=True, exist_ok=True)
        rows = (f"{k} = {v!r}".replace("'", '"') for k, v in fields.items())
        (directory / "hpcc.toml").write_text("[cache.remote]\n" + "\n".join(rows) + "\n")

    def propose(self, text: str) -> None:
        (self.root / ".hpcc").write_text(text)
        self.age()

    def age(self) -> None:
        """Make all files older than any compile, so that hits become replays at once."""
        old = time.time() - _LONG_AGO
        state = Path(self.env["HPCC_DIR"]) / "state"
        for path in (self.root, *self.root.rglob("*"), *state.glob("cache-trust.json")):
            os.utime(path, (old, old))

    def count(self, name: str) -> int:
        return counters(self.env).get(name, 0)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def person(tmp_path: Path, launcher: Path) -> Iterator[Callable[[str], Person]]:
    people: list[Person] = []

    def make(name: str) -> Person:
        env = launcher_environment(tmp_path / name / "hpcc")
        env["PATH"] = f"{launcher.parent}:{env['PATH']}"
        made = Person(tmp_path / name / "project", env)
        for file, text in {**FILES, ".hpcc": ""}.items():
            (made.root / file).parent.mkdir(parents=True, exist_ok=True)
            (made.root / file).write_text(text)
        made.age()
        people.append(made)
        return made

    yield make
    for made in people:
        stop_daemon(made.env)


def set_up(
    person: Callable[[str], Person], server: ObjectServer
) -> tuple[Person, Person, str, str]:
    """Let CI build and upload; return it, a colleague, the key's line and its fingerprint."""
    ci, ann = person("ci"), person("ann")
    key_file = ci.root.parent / "ci.key"
    said = ci.hpcc("cache", "keygen", str(key_file)) if ci.configure(url=server.url) is None else ""
    line, fingerprint = said.splitlines()[0], said.split("fingerprint ")[1].split(",")[0]
    assert key_file.stat().st_mode & 0o777 == 0o600
    ci.configure(url=server.url, mode="write", signing_key_file=str(key_file))
    # A launcher that starts the daemon compiles without it where that takes long.
    ci.hpcc("start")
    for command in (MAIN, OTHER):
        ci.hpcc(*command)
    assert "2 results uploaded" in ci.hpcc("cache", "flush")
    # Each has an outline, with which `hpcc explain` compares.
    assert len(server.objects) == 4
    ann.configure(url=server.url)
    ann.propose(f'proposed_keys = ["{line}"]\n')
    return ci, ann, line, fingerprint


def test_a_proposal_counts_after_its_confirmation_and_for_this_root_only(
    person: Callable[[str], Person], server: ObjectServer, tmp_path: Path
) -> None:
    _, ann, line, fingerprint = set_up(person, server)
    assert "none counts here" in ann.hpcc("cache", "status")
    server.requests.clear()
    ann.hpcc(*MAIN)
    assert server.requests == []
    assert "--fingerprint" in ann.hpcc("cache", "trust", status=2)  # nobody can be asked
    wrong = "0000-" + fingerprint[5:]
    ann.hpcc("cache", "trust", "--fingerprint", wrong, status=1)
    said = ann.hpcc("cache", "trust", "--fingerprint", fingerprint)
    assert str(ann.root) in said
    assert server.url in said
    ann.hpcc(*OTHER)
    assert ann.count("hit.signed") == 1
    assert f"signed by     key {_kid(said)}" in ann.hpcc("explain", "other.o")
    # A second checkout of the same person, with the same proposal: nothing was confirmed for it.
    second = Person(tmp_path / "ann" / "second", ann.env)
    second.root.mkdir()
    subprocess.run(["cp", "-rp", f"{ann.root}/.", str(second.root)], check=True)
    (second.root / "other.o").unlink()
    second.hpcc(*OTHER)
    assert ann.count("hit.signed") == 1
    assert ann.count("remote-cache.no-keys") == 2
    # Another place is another confirmation.
    ann.configure(url=server.url, namespace="other")
    assert "none counts here" in ann.hpcc("cache", "status")
    ann.configure(url=server.url)
    assert "confirmed for this checkout" in ann.hpcc("cache", "status")
    ann.hpcc("cache", "trust", "--remove")
    assert "none counts here" in ann.hpcc("cache", "status")
    assert line in ann.hpcc("cache", "status")


def _kid(said: str) -> str:
    return said.split("key ")[1].split(maxsplit=1)[0].strip(",")


def test_a_revocation_reaches_replays_at_once(
    person: Callable[[str], Person], server: ObjectServer
) -> None:
    """A hit that the daemon replays from the bytes of its request ends with the key, too."""
    _, ann, line, fingerprint = set_up(person, server)
    ann.hpcc("cache", "trust", "--fingerprint", fingerprint)
    ann.age()
    for _ in range(3):
        ann.hpcc(*MAIN)
    assert (ann.count("hit.signed"), ann.count("miss.local")) == (3, 0)
    ann.hpcc("cache", "revoke", line)
    assert "REVOKED" in ann.hpcc("cache", "status")
    ann.hpcc(*MAIN)
    assert (ann.count("hit.signed"), ann.count("miss.local")) == (3, 1)
    said = ann.hpcc("stats")
    assert "signed by another machine" in said
    assert "no key counts for the checkout" in said
    assert "no key counts" in ann.hpcc("explain", "main.o")


def test_a_revocation_in_the_clone_reaches_replays_at_once(
    person: Callable[[str], Person], server: ObjectServer
) -> None:
    _, ann, line, fingerprint = set_up(person, server)
    kid = _kid(ann.hpcc("cache", "trust", "--fingerprint", fingerprint))
    ann.age()
    for _ in range(2):
        ann.hpcc(*MAIN)
    ann.propose(f'proposed_keys = ["{line}"]\nrevoked_keys = ["{kid}"]\n')
    ann.hpcc(*MAIN)
    assert (ann.count("hit.signed"), ann.count("miss.local")) == (2, 1)


def test_explain_compares_a_miss_with_the_nearest_result(
    person: Callable[[str], Person], server: ObjectServer
) -> None:
    ci, ann, _, fingerprint = set_up(person, server)
    ci.hpcc(*MAIN, "-O1", "-DTOKEN=secret")
    ci.hpcc("cache", "flush")
    ann.hpcc("cache", "trust", "--fingerprint", fingerprint)
    ann.hpcc("start")
    (ann.root / "src/util.h").write_text("#define CONF 8\n")
    ann.age()
    ann.hpcc(*MAIN)
    said = ann.hpcc("explain", "main.o")
    assert "the same command" in said
    assert "src/util.h differs" in said
    assert "other inputs are equal" in said
    ann.hpcc(*MAIN, "-O2", "-DTOKEN=guess")
    said = ann.hpcc("explain", "main.o").partition("nearest")[2]
    assert "another flags -D, -O" in said.replace("\n", " ")
    assert "secret" not in said
    # Without a key that counts nothing is asked. A place that is away costs one line.
    requests = len(server.requests)
    bob = person("bob")
    bob.configure(url=server.url)
    bob.hpcc("start")
    bob.hpcc(*MAIN)
    assert "nearest" not in bob.hpcc("explain", "main.o")
    assert len(server.requests) == requests
    server.trouble = "error"
    assert "did not answer (store-http)" in ann.hpcc("explain", "main.o")


def test_flush_tells_what_was_lost(person: Callable[[str], Person], server: ObjectServer) -> None:
    ci, _, _, _ = set_up(person, server)
    server.trouble = "error"
    ci.hpcc(*MAIN, "-O2")
    assert "1 lost" in ci.hpcc("cache", "flush", status=1)
    assert "a result was not uploaded: store-http" in ci.hpcc("stats")
    stop_daemon(ci.env)
    assert "no daemon" in ci.hpcc("cache", "flush")
    # A new daemon has lost nothing.
    server.trouble = ""
    ci.hpcc(*MAIN, "-O3")
    assert "1 results uploaded or there already, 0 lost" in ci.hpcc("cache", "flush")


def test_keygen_keeps_an_existing_file(person: Callable[[str], Person], tmp_path: Path) -> None:
    ann = person("ann")
    path = tmp_path / "key"
    ann.hpcc("cache", "keygen", str(path), "--days", "0", status=2)
    ann.hpcc("cache", "keygen", str(path))
    before = path.read_bytes()
    assert "kept" in ann.hpcc("cache", "keygen", str(path), status=2)
    assert path.read_bytes() == before


def test_a_damaged_trust_file_trusts_nobody(
    person: Callable[[str], Person], server: ObjectServer
) -> None:
    _, ann, _, fingerprint = set_up(person, server)
    ann.hpcc("cache", "trust", "--fingerprint", fingerprint)
    (Path(ann.env["HPCC_DIR"]) / "state/cache-trust.json").write_text("{}")
    ann.hpcc(*MAIN)
    assert ann.count("hit.signed") == 0
    assert "damaged" in ann.hpcc("cache", "status", status=2)


def test_doctor_tells_what_is_wrong(
    person: Callable[[str], Person], server: ObjectServer, tmp_path: Path
) -> None:
    ci, ann, line, _ = set_up(person, server)
    del ci
    assert "no key counts in this directory" in ann.hpcc("doctor", status=0)
    ann.configure(url=server.url, trusted_keys=[line])
    assert f"{server.url}, mode read" in ann.hpcc("doctor")
    secret = tmp_path / "secret.json"
    secret.write_text('{"token": "x"}')
    secret.chmod(0o644)
    ann.configure(url=server.url, trusted_keys=[line], credentials_file=str(secret))
    assert "others can read" in ann.hpcc("doctor")
    ann.hpcc(*MAIN)  # and compiles go on
    assert ann.count("remote-cache.failed.config") == 1


def test_a_daemon_that_is_killed_in_mid_upload_leaves_nothing_half_written(
    person: Callable[[str], Person], server: ObjectServer
) -> None:
    ci, ann, line, _ = set_up(person, server)
    server.objects.clear()
    ci.hpcc("clean")
    server.gate.clear()
    ci.hpcc(*MAIN)
    status = ci.hpcc("status", "--json")
    pid = int(status.split('"pid": ')[1].split(",")[0])
    os.kill(pid, 9)
    server.gate.set()
    ann.configure(url=server.url, trusted_keys=[line])
    ann.hpcc(*MAIN)
    assert (ann.count("hit.signed"), ann.count("miss.local")) == (0, 1)
    assert not ann.hpcc("stats").count("refused")
