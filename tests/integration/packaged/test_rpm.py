"""rpm installs, upgrades and removes the packages on a copy of this machine.

The copy is a Debian: what a package needs has other names there, so rpm runs with `--nodeps`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc_testkit.packages.built import SMALL, Builder
from hpcc_testkit.packages.machine import MachineCopy

pytestmark = pytest.mark.timeout(600)

_SERVICES = ("scheduler", "gateway", "worker")
_RPM = (shutil.which("rpm") or "rpm", "--nodeps", "--nosignature")
_COMPILE = "rm -f a.o; hpcc gcc -c a.c; test -s a.o"


def test_rpm_installs_upgrades_and_removes_and_keeps_settings(
    small: Callable[[str], list[Path]], builder: Builder, copy: MachineCopy, tmp_path: Path
) -> None:
    config, other = "/etc/hpcc/worker/worker.json", "/etc/hpcc/gateway/gateway.json"
    copy.run(*_RPM, "-i", *copy.lend(small("rpm")))
    copy.run_as_nobody(f"echo 'int a;' > a.c; hpcc start; {_COMPILE}; {_COMPILE}")
    copy.run_as_nobody("hpcc stats --json > stats.json; hpcc stop")
    counted = json.loads((copy.home / "stats.json").read_text())
    assert (counted.get("miss.local"), counted.get("hit.local")) == (1, 1), counted
    assert "dnf install hpcc-farm" in copy.run("hpcc", "up", status=2)
    assert ".pyc" in copy.run("ls", "/usr/lib/hpcc/python/hpcc/cli/__pycache__")
    assert copy.run("find", "/etc/systemd/system", "-name", "hpcc-*") == ""
    for name in _SERVICES:
        user, place = f"hpcc-{name}", f"/etc/hpcc/{name}"
        stats = copy.run("stat", "-c", "%U:%G %a", place, f"{place}/{name}.json").splitlines()
        assert stats == [f"{user}:{user} 700", f"{user}:{user} 600"]

    copy.run("sh", "-c", f"echo '{{}}' > {config}; mkdir -p /var/lib/hpcc-worker/keys")
    copy.run("touch", "/etc/hpcc/worker/enrol.token")
    tree = tmp_path / "tree"
    tree.mkdir()
    newer = builder.with_file(tree, "deploy/packages/gateway.json", '{"port": 1}\n')
    next_ones = newer.build(tmp_path / "next", "rpm", SMALL, revision=2)
    copy.run(*_RPM, "-U", *copy.lend(next_ones))
    assert copy.run(*_RPM[:1], "-q", "hpcc").startswith(f"hpcc-{__version__}-2.")
    assert copy.run("cat", config) == "{}\n"
    # Nobody had touched this one.
    assert copy.run("cat", other) == '{"port": 1}\n'
    assert copy.run("stat", "-c", "%U %a", other) == "hpcc-gateway 600\n"
    assert ".pyc" in copy.run("ls", "/usr/lib/hpcc/python/hpcc/cli/__pycache__")

    said = copy.run(*_RPM[:2], "-e", *SMALL)
    assert "hpcc-worker: nothing that it wrote is deleted. Left are /var/lib/hpcc-worker" in said
    assert copy.run("cat", f"{config}.rpmsave") == "{}\n"
    copy.run("test", "-e", "/usr/lib/hpcc", status=1)
    copy.run("ls", "-d", "/etc/hpcc/worker/enrol.token", "/var/lib/hpcc-worker/keys")
