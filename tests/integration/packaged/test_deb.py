"""Debian's tools install, upgrade, remove and purge the packages on a copy of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc_testkit.packages.built import SMALL, Builder
from hpcc_testkit.packages.machine import MachineCopy

pytestmark = pytest.mark.timeout(600)

_SERVICES = ("scheduler", "gateway", "worker")
# The libraries that services depend on are another test's, because they are large.
_DPKG = ("dpkg", "--force-unsafe-io", "--force-depends")
_COMPILE = "rm -f a.o; hpcc gcc -c a.c; test -s a.o"
_UNITS = "/usr/lib/systemd/system/hpcc-"


def install(copy: MachineCopy, packages: Sequence[Path]) -> str:
    return copy.run(*_DPKG, "--install", *copy.lend(packages))


def test_hpcc_compiles_hits_and_has_its_page_and_its_completions(
    small: Callable[[str], list[Path]], copy: MachineCopy
) -> None:
    # No dependency is missing here: this machine has python3.
    copy.run("dpkg", "--force-unsafe-io", "--install", *copy.lend(small("deb")[:1]))
    copy.run_as_nobody(
        f"echo 'int a;' > a.c; hpcc start; {_COMPILE}; {_COMPILE}; hpcc doctor > doctor.txt"
    )
    copy.run_as_nobody("hpcc stats --json > stats.json; hpcc stop")
    counted = json.loads((copy.home / "stats.json").read_text())
    assert (counted.get("miss.local"), counted.get("hit.local")) == (1, 1), counted
    assert copy.run("hpcc", "--version") == f"hpcc {__version__}\n"
    assert ".TH HPCC 1" in copy.run("gzip", "-dc", "/usr/share/man/man1/hpcc.1.gz")
    bash = "source /usr/share/bash-completion/completions/hpcc; complete -p hpcc"
    assert "hpcc" in copy.run("bash", "-euc", bash)
    for shell in ("zsh/vendor-completions/_hpcc", "fish/vendor_completions.d/hpcc.fish"):
        assert "explain" in copy.run("cat", f"/usr/share/{shell}")
    # Modules were compiled once, so that no user does it in each command.
    assert ".pyc" in copy.run("ls", "/usr/lib/hpcc/python/hpcc/cli/__pycache__")
    # The command that adds an extra is this family's.
    assert "apt-get install hpcc-farm" in copy.run("hpcc", "up", status=2)


def _check_that_nothing_was_started(copy: MachineCopy) -> None:
    assert copy.run("find", "/etc/systemd/system", "-name", "hpcc-*") == ""
    for name in _SERVICES:
        user, place = f"hpcc-{name}", f"/etc/hpcc/{name}"
        stats = copy.run("stat", "-c", "%U:%G %a", place, f"{place}/{name}.json").splitlines()
        assert stats == [f"{user}:{user} 700", f"{user}:{user} 600"]
    assert copy.run("id", "-nG", "hpcc-worker").split() == ["hpcc-worker", "kvm"]
    services = [f"{_UNITS}{name}.service" for name in (*_SERVICES, "helper")]
    checked = ("systemd-analyze", "verify", "--man=no", *services, f"{_UNITS}helper.socket")
    assert copy.run(*checked) == ""
    shown = copy.run("grep", "-h", "^ExecStart=", *services)
    for program in re.findall(r"^ExecStart=(\S+)", shown, re.MULTILINE):
        copy.run("test", "-x", program)


def test_services_are_not_started_and_what_an_operator_wrote_outlives_all(
    small: Callable[[str], list[Path]], builder: Builder, copy: MachineCopy, tmp_path: Path
) -> None:
    config, other = "/etc/hpcc/worker/worker.json", "/etc/hpcc/gateway/gateway.json"
    install(copy, small("deb"))
    _check_that_nothing_was_started(copy)
    copy.run("sh", "-c", f"echo '{{}}' > {config}; mkdir -p /var/lib/hpcc-worker/keys")
    copy.run("touch", "/etc/hpcc/worker/enrol.token")
    # The operator of a worker of root has given the file away.
    copy.run("chown", "root:", config)
    tree = tmp_path / "tree"
    tree.mkdir()
    newer = builder.with_file(tree, "deploy/packages/gateway.json", '{"port": 1}\n')
    said = install(copy, newer.build(tmp_path / "next", "deb", SMALL, revision=2))
    assert f"{__version__}-2" in said
    assert copy.run("cat", config) == "{}\n"
    assert copy.run("stat", "-c", "%U %a", config) == "root 600\n"
    # Nobody had touched this one.
    assert copy.run("cat", other) == '{"port": 1}\n'
    assert copy.run("stat", "-c", "%U %a", other) == "hpcc-gateway 600\n"
    assert "warning" not in said
    said = copy.run(*_DPKG, "--remove", *SMALL)
    assert "not removed" not in said
    assert copy.run("cat", config) == "{}\n"
    copy.run("test", "-e", "/usr/lib/hpcc", status=1)
    said = copy.run(*_DPKG, "--purge", *SMALL)
    copy.run("test", "-e", config, status=1)
    copy.run("ls", "-d", "/etc/hpcc/worker/enrol.token", "/var/lib/hpcc-worker/keys")
    assert "hpcc-worker: nothing that it wrote is deleted. Left are /var/lib/hpcc-worker" in said
    assert "hpcc-worker" in copy.run("getent", "passwd", "hpcc-worker")
