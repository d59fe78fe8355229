"""`hpcc attest`, `verify-evidence` and `audit coverage` about a library and a program."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.recorder.link_record import LinkFile, LinkRecord, NoDigest
from hpcc.cache.recorder.places import LINK_LIMITS, LINKS_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.config.paths import Paths
from hpcc_testkit.cache.launcher import build_launcher, launcher_environment, stop_daemon
from hpcc_testkit.evidence.made import guest_row, trail_of

SOURCES = {
    "main.c": "int net(void);\nint main(void) { return net(); }\n",
    "net.c": "int net(void) { return 0; }\n",
    "more.c": "int more(void) { return 1; }\n",
}
# No command that checks evidence may open a socket, ask for a name or start a program.
OFFLINE = """
import sys
def hook(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system")):
        raise RuntimeError(event)
sys.addaudithook(hook)
from hpcc.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


class Project:
    """A program and a library of one object, linked through the launcher with records."""

    def __init__(self, base: Path) -> None:
        self.tree, self.home = base / "tree", base / "hpcc"
        self.tree.mkdir()
        self.env = launcher_environment(self.home)
        self.env["HPCC_BUILD"] = "ci/4711"

    def build(self, launcher: Path) -> None:
        (self.home / "config").mkdir(parents=True, exist_ok=True)
        (self.home / "config/hpcc.toml").write_text("[cache]\nlinks = true\n")
        for name, text in SOURCES.items():
            (self.tree / name).write_text(text)
            self.run("gcc", "-c", name)
        self.run("ar", "rcs", "libnet.a", "net.o", "more.o")
        self.hpcc("start")  # so that no compile is done without asking the daemon
        self.run(str(launcher), "gcc", "-c", "more.c", "-o", "again.o")
        self.run(str(launcher), "gcc", "main.o", "-L.", "-lnet", "-o", "app")

    def run(self, *argv: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            argv, cwd=self.tree, env=self.env, check=False, capture_output=True, timeout=120
        )
        assert done.returncode == code, (argv, done.returncode, done.stderr.decode())
        return done.stdout.decode(), done.stderr.decode()

    def hpcc(self, *words: str, code: int = 0) -> tuple[str, str]:
        return self.run(sys.executable, "-m", "hpcc.cli", *words, code=code)

    def offline(self, *words: str, code: int = 0) -> tuple[str, str]:
        return self.run(sys.executable, "-c", OFFLINE, "verify-evidence", *words, code=code)

    async def trail(self, name: str, *objects: str, **changes: object) -> str:
        rows = [
            guest_row(n, {o: (self.tree / o).read_bytes()}, **changes)
            for n, o in enumerate(objects)
        ]
        worker = str(changes.get("worker", "w1"))
        return str(await trail_of(self.tree / name, rows, worker=worker))


def forge(spool: Path) -> None:
    spool.write_bytes(spool.read_bytes().replace(b"qemu/tcg", b"qemu/kvm"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    base = tmp_path_factory.mktemp("evidence")
    found = Project(base)
    try:
        found.build(build_launcher(base / "bin"))
        yield found
    finally:
        stop_daemon(found.env)


async def test_a_program_is_attested_and_checked_without_a_network(project: Project) -> None:
    trail = await project.trail("good", "main.o", "net.o", "more.o")
    out, _ = project.hpcc("attest", "app", "--trail", trail, "--key", "maker.key")
    assert "app.evidence.zip: 3 rows of 1 workers" in out
    assert "link: claimed by the machine that linked" in out
    assert "build: ci/4711 (claimed)" in out
    assert "verdict PASSED: all 3 compiled objects are of guests" in out
    out, _ = project.offline("app.evidence.zip", "app", "--key", "maker.key.pub")
    assert "guest          3  qemu/tcg, reuse principal" in out
    assert "pkg:deb/debian/libc6-dev@" in out
    assert "signatures 9 good   inclusion 3 good   heads 1 of the maker   keys of workers as" in out
    assert "which parts there are is claimed" in out
    _, err = project.offline("app.evidence.zip", "libnet.a", "--key", "maker.key.pub", code=5)
    assert "the evidence is about another file" in err
    strict = ("--isolation", "firecracker/kvm")
    out, _ = project.offline("app.evidence.zip", "app", "--key", "maker.key.pub", *strict, code=3)
    assert "verdict FAILED: 3 of " in out


async def test_a_library_needs_no_record_of_a_link(project: Project) -> None:
    trail = await project.trail("library", "net.o", "more.o")
    out, _ = project.hpcc("attest", "libnet.a", "--trail", trail, "-o", "lib.zip")
    assert "made: the members are in the library, byte for byte" in out
    key = project.home / "state/evidence/maker.key.pub"
    out, _ = project.offline("lib.zip", "libnet.a", "--key", str(key))
    assert "libnet.a" in out
    assert "verdict PASSED: all 2 compiled objects are of guests" in out


async def test_what_has_no_row_is_named_and_the_status_is_3(project: Project) -> None:
    trail = await project.trail("part", "main.o", "net.o")
    for words in (("app",), ("--build", "ci/4711"), ("ci/4711",)):
        out, _ = project.hpcc("audit", "coverage", *words, "--trail", trail, code=3)
        assert "libnet.a(more.o)" in out
        # The same bytes were compiled here, as again.o.
        assert "local          1  compiled on this machine, as a record of its user" in out
        assert "verdict FAILED: 1 of " in out
    out, _ = project.hpcc("attest", "app", "--trail", trail, "-o", "part.zip", code=3)
    key = project.home / "state/evidence/maker.key.pub"
    out, _ = project.offline("part.zip", "app", "--key", str(key), code=3)
    assert "libnet.a(more.o)" in out


async def test_coverage_of_a_build_is_proved_where_each_link_is(project: Project) -> None:
    trail = await project.trail("whole", "main.o", "net.o", "more.o")
    out, _ = project.hpcc("audit", "coverage", "ci/4711", "--trail", trail)
    assert "verdict PASSED" in out
    demand = ("--require", "guest", "--isolation", "process/runc")
    project.hpcc("audit", "coverage", "ci/4711", "--trail", trail, *demand, code=3)


async def test_an_object_may_be_attested_alone(project: Project) -> None:
    trail = await project.trail("one", "net.o", reuse="exec")
    project.hpcc("attest", "net.o", "--trail", trail, "--key", "maker.key")
    out, _ = project.offline("net.o.evidence.zip", "net.o", "--key", "maker.key.pub")
    assert "verdict PASSED: all 1 compiled objects are of guests" in out


async def test_statuses_of_what_is_missing_damaged_or_wrong(project: Project) -> None:
    trail = await project.trail("status", "net.o")
    _, err = project.hpcc("audit", "coverage", "main.c", "--trail", trail, code=4)
    assert "no link of this file is recorded here" in err
    project.hpcc("attest", "main.c", "--trail", trail, code=4)
    project.hpcc("audit", "coverage", "absent/build", "--trail", trail, code=4)
    project.hpcc("audit", "coverage", "app", "--trail", "absent", code=4)
    _, err = project.hpcc("audit", "coverage", "app", "--trail", trail, "--isolation", "x", code=1)
    assert "must be one of firecracker/kvm" in err
    _, err = project.hpcc("audit", "coverage", "app", "--trail", trail, "--trail", trail, code=1)
    assert "two of the trails are of one worker" in err
    project.offline("absent.zip", "app", "--key", "maker.key.pub", code=4)
    project.offline("main.c", "app", "--key", "main.c", code=1)
    forge(Path(trail, "spool.hpcc"))
    _, err = project.hpcc("audit", "coverage", "libnet.a", "--trail", trail, code=5)
    assert "wrong signature" in err


async def test_pipes_and_directories_are_not_waited_for(project: Project) -> None:
    os.mkfifo(project.tree / "pipe")
    trail = await project.trail("pipes", "net.o")
    project.hpcc("attest", "pipe", "--trail", trail, code=1)
    project.hpcc("attest", ".", "--trail", trail, code=1)
    project.offline("pipe", "app", "--key", "maker.key.pub", code=1)


async def test_a_gate_names_its_build_in_full(project: Project) -> None:
    trail = await project.trail("named", "main.o", "net.o", "more.o")
    out, _ = project.hpcc("audit", "coverage", "ci/47", "--trail", trail)
    assert out.startswith("build ci/4711\n")
    _, err = project.hpcc("audit", "coverage", "--build", "ci/47", "--trail", trail, code=4)
    assert "no build 'ci/47' is recorded; 'ci/4711' has a like name" in err


async def test_an_output_that_changed_since_its_link_is_not_proved(project: Project) -> None:
    """Two outputs without a digest look the same: each once counted with the inputs of the last."""
    trail = await project.trail("cut", "main.o", "more.o")
    inputs = {name: hashlib.sha256((project.tree / name).read_bytes()).hexdigest()
              for name in ("main.o", "net.o")}  # fmt: skip
    paths = Paths.from_env(project.env)
    recorder = Recorder(os.path.join(paths.cache, LINKS_NAME), lambda: 1.7e9, LINK_LIMITS)
    for name, used in (("one", "net.o"), ("two", "main.o")):
        record = LinkRecord(
            began_us=1, took_us=1, output=LinkFile(str(project.tree / name), NoDigest.CHANGED),
            size_bytes=1, cwd=str(project.tree), compiler="/usr/bin/gcc", tools="0" * 64,
            command=("gcc",), command_digest="0" * 64,
            inputs=(LinkFile(str(project.tree / used), inputs[used]),), inputs_digest="0" * 64,
        )  # fmt: skip
        recorder.add_link("ci/4711", record)
    recorder.flush()
    out, _ = project.hpcc("audit", "coverage", "ci/4711", "--trail", trail, code=3)
    assert out.count("(no digest: changed)") == 2


async def test_a_key_in_a_directory_that_nobody_writes(project: Project) -> None:
    trail = await project.trail("secret", "net.o")
    secrets = project.tree / "secrets"
    secrets.mkdir()
    key = str(secrets / "maker.key")
    project.hpcc("attest", "net.o", "--trail", trail, "--key", key)
    pem = (secrets / "maker.key.pub").read_bytes()
    (secrets / "maker.key.pub").unlink()
    (secrets / "maker.key.pub").mkdir()  # root can write everywhere else
    _, err = project.hpcc("attest", "net.o", "--trail", trail, "--key", key)
    assert "cannot be written" in err
    project.run("unzip", "-qo", "net.o.evidence.zip", "maker.pem")
    assert (project.tree / "maker.pem").read_bytes() == pem


async def test_rows_of_another_tenant_do_not_enter_a_file(project: Project) -> None:
    own = await project.trail("own", "main.o", "net.o", "more.o", tenant="acme")
    # It proves more than the own rows, so it would be chosen.
    other = await project.trail(
        "other", "net.o", tenant="globex", worker="w2", isolation="firecracker/kvm", reuse="exec"
    )
    given = ("attest", "app", "--trail", own, "--trail", other, "--key", "tenant.key")
    _, err = project.hpcc(*given, code=1)
    assert "the rows are of several tenants: choose one with --tenant (acme, globex)" in err
    project.hpcc(*given, "--tenant", "acme")
    data = (project.tree / "app.evidence.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        texts = b"".join(files.read(name) for name in files.namelist())
    bodies = re.findall(rb'"payload":"([^"]+)"', texts)
    assert bodies
    assert not any(b"globex" in base64.b64decode(body) for body in bodies)
    assert b"globex" not in texts
    out, _ = project.offline("app.evidence.zip", "app", "--key", "tenant.key.pub")
    assert "3 good" in out
