"""A compile on this machine leaves a signed record, and `coverage` tells it from unknown bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.evidence.forms.dsse import seal_statement
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import parse_pinned
from hpcc.evidence.local_record import (
    LOCAL,
    MAX_COMPILES,
    LocalCompile,
    local_statement,
    read_local_line,
)
from hpcc_testkit.cache.launcher import build_launcher, launcher_environment, stop_daemon
from hpcc_testkit.evidence.made import guest_row, raw, trail_of
from hpcc_testkit.evidence.tools import openssl_accepts

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


class Machine:
    """A library of three objects: of a guest, of a compile here, and of nobody."""

    def __init__(self, base: Path) -> None:
        self.tree, self.home = base / "tree", base / "hpcc"
        self.tree.mkdir()
        self.env = launcher_environment(self.home) | {"HPCC_BUILD": "ci/4711"}

    def build(self, launcher: str) -> None:
        (self.home / "config").mkdir(parents=True, exist_ok=True)
        (self.home / "config/hpcc.toml").write_text("[cache]\nlinks = true\n")
        for name in ("guest", "here", "odd", "broken"):
            text = "int f(" if name == "broken" else f"int {name}(void) {{ return 1; }}\n"
            (self.tree / f"{name}.c").write_text(text)
        self.hpcc("start")
        self.run("gcc", "-c", "guest.c")
        self.run("gcc", "-c", "odd.c")
        self.run(launcher, "gcc", "-c", "here.c")
        self.hpcc("stats")  # which writes the record
        (self.tree / "here.o").unlink()
        self.run(launcher, "gcc", "-c", "here.c")  # a hit, which leaves no record
        self.run(launcher, "gcc", "-c", "broken.c", code=1)
        self.run("ar", "rcs", "lib.a", "guest.o", "here.o", "odd.o")

    def run(self, *argv: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            argv, cwd=self.tree, env=self.env, check=False, capture_output=True, timeout=300
        )
        assert done.returncode == code, (argv, done.returncode, done.stderr.decode())
        return done.stdout.decode(), done.stderr.decode()

    def hpcc(self, *words: str, code: int = 0) -> tuple[str, str]:
        return self.run(sys.executable, "-m", "hpcc.cli", *words, code=code)

    @property
    def records(self) -> Path:
        (found,) = (self.home / "cache/locals").glob("*.part")
        return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    base = tmp_path_factory.mktemp("local")
    found = Machine(base)
    try:
        found.build(str(build_launcher(base / "bin")))
        yield found
    finally:
        stop_daemon(found.env)


async def test_a_local_compile_is_named_apart_and_proves_nothing(
    machine: Machine, tmp_path: Path
) -> None:
    row = guest_row(0, {"guest.o": (machine.tree / "guest.o").read_bytes()})
    trail = str(await trail_of(tmp_path / "trail", [row]))
    coverage = ("audit", "coverage", "lib.a", "--trail", trail)
    out, err = machine.hpcc(*coverage, code=3)
    local, unknown = out.index("  local  "), out.index("  unknown  ")
    assert "guest          1  qemu/tcg, reuse principal" in out
    assert "local          1  compiled on this machine" in out
    assert "build ci/4711" in out[local:unknown]
    assert "here.o" in out[local:unknown]
    assert "odd.o" in out[unknown:]
    assert "verdict FAILED: 2 of 3 parts are not of an accepted guest" in out
    assert "damaged" not in err

    # One line, one compile: neither the hit nor the failed one left any.
    whole = machine.records.read_bytes()
    (line,) = whole.splitlines()
    table = json.loads(line)
    payload, kind = base64.b64decode(table["payload"]), table["payloadType"].encode()
    statement = json.loads(payload)
    assert (statement["predicateType"], len(statement["subject"])) == (LOCAL, 1)
    assert statement["subject"][0]["name"] == str(machine.tree / "here.o")
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(table["signatures"][0]["sig"])
    public = machine.home / "state/evidence/local.key.pub"
    assert openssl_accepts(message, signature, public, tmp_path)
    assert (public.with_name("local.key").stat().st_mode & 0o777) == 0o600

    # A record of another key does not count, nor does one that was changed.
    one = read_local_line(line, raw_of(public))[0]
    forged = one._replace(
        path=str(machine.tree / "odd.o"), digest=digest_of(machine.tree / "odd.o")
    )
    for text in (
        whole + seal_statement(local_statement([forged]), "0" * 32, OTHER.sign) + b"\n",
        whole.replace(table["payload"][:40].encode(), table["payload"][1:41].encode()),
    ):
        machine.records.write_bytes(text)
        out, err = machine.hpcc(*coverage, code=3)
        assert "odd.o" in out[out.index("  unknown  ") :]
        assert "1 files with records of local compiles are damaged" in err
    machine.records.write_bytes(whole)


def raw_of(public: Path) -> bytes:
    return parse_pinned(public.read_bytes(), "local.key.pub").makers[0]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compiled(number: int = 0, **changes: object) -> LocalCompile:
    values: dict[str, object] = {
        "path": f"/w/{number}.o", "digest": f"{number:064x}", "size_bytes": number,
        "compiler": "/usr/bin/gcc", "tools": "ab" * 32, "command_digest": "cd" * 32, "cwd": "/w",
        "build": "ci/1", "reason": "new-request", "fallback": "deadline: 3 s",
        "finished_on": "2026-12-01T00:00:00Z", **changes,
    }  # fmt: skip
    return LocalCompile(**values)  # type: ignore[arg-type]  # built by name just above


def test_a_statement_reads_back_and_hostile_texts_are_bounded() -> None:
    many = [compiled(n) for n in range(MAX_COMPILES)]
    line = seal_statement(local_statement(many), "0" * 32, KEY.sign)
    assert read_local_line(line, raw(KEY)) == many
    odd = compiled(path="/w/\udcff.o", compiler="g" * 9000, reason="ä\n" * 400)
    (found,) = read_local_line(seal_statement(local_statement([odd]), "0" * 32, KEY.sign), raw(KEY))
    assert found.path == "/w/?.o"
    assert (len(found.compiler), len(found.reason)) == (4096, 256)
    assert found.reason.isascii()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"size":0', b'"size":-1'),
        (b'"size":0', b'"size":true'),
        (b'"reason":"new-request"', b'"reason":"new\\u0007"'),
        (b'"reason":"new-request"', b'"reason":["new-request"]'),
        (b'"reason":"new-request"', b'"other":"new-request"'),
        (b'"subject":[', b'"subject":[{"name":"a","digest":{"sha256":"' + b"0" * 64 + b'"}},'),
        (b"0" * 64, b"0" * 63),
        (LOCAL.encode(), b"https://slsa.dev/provenance/v1"),
    ],
)
def test_a_signed_statement_of_another_form_is_refused(before: bytes, after: bytes) -> None:
    text = local_statement([compiled()])
    assert before in text
    line = seal_statement(text.replace(before, after, 1), "0" * 32, KEY.sign)
    with pytest.raises(EvidenceDamagedError):
        read_local_line(line, raw(KEY))


def test_a_statement_of_another_key_is_refused() -> None:
    line = seal_statement(local_statement([compiled()]), "0" * 32, OTHER.sign)
    with pytest.raises(EvidenceDamagedError, match="signature is wrong"):
        read_local_line(line, raw(KEY))
