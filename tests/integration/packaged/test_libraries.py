"""The packages with libraries: each library is there, in the locked version, and imports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hpcc.config.extras import MODULES
from hpcc_testkit.packages.built import ALL, ROOT, Builder
from hpcc_testkit.packages.machine import MachineCopy

# 200 MB of libraries, and their wheels have to be fetched once.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

_ASK = """
import importlib, importlib.metadata, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
found = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
json.dump([found, sys.path], sys.stdout)
"""
_INSTALL = {
    "deb": ("dpkg", "--force-unsafe-io", "--install"),
    "rpm": (shutil.which("rpm") or "rpm", "--nodeps", "--nosignature", "-i"),
}


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_a_farm_has_exactly_the_locked_libraries_and_no_other(
    builder: Builder, copy: MachineCopy, tmp_path: Path, kind: str
) -> None:
    copy.run(*_INSTALL[kind], *copy.lend(builder.build(tmp_path, kind, ALL)))
    modules = [*MODULES["client"], *MODULES["farm"]]
    said = copy.run("/usr/lib/hpcc/bin/python", "-I", "-B", "-c", _ASK, *modules)
    found, path = json.loads(said)
    assert not [place for place in path if "dist-packages" in place]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lock if line[:1].isalpha()]
    names = {canonicalize_name(pin.name): pin for pin in pins}
    found = {canonicalize_name(name): version for name, version in found.items()}
    assert set(found) == {*names, "hpcc"}
    for name, version in found.items():
        if name != "hpcc":
            assert names[name].specifier.contains(version, prereleases=True), name
    # The same for the Pythons that this machine does not have.
    places = [
        {entry for entry in copy.run("ls", f"{site}/site-packages").split() if "dist-info" in entry}
        for site in copy.run("sh", "-c", "ls -d /usr/lib/hpcc/lib/python3.*").split()
    ]
    assert len(places) == 3
    assert places[0] == places[1] == places[2] != set()
    doctor = copy.run_as_nobody("hpcc doctor || true")
    assert "is not installed; add it" not in doctor
    # Commands of each extra get as far as their own errors.
    assert "there is no remote cache" in copy.run_as_nobody("hpcc cache status || true")
    config = "/etc/hpcc/worker/worker.json"
    run_as_worker = ("setpriv", "--reuid=hpcc-worker", "--regid=hpcc-worker", "--clear-groups")
    said = copy.run(*run_as_worker, "hpcc", "worker", "--config", config, status=2)
    assert f"{config}: " in said or "sha256:" in said
    copy.run_as_nobody("hpcc stop")


def test_a_service_that_is_not_configured_says_what_is_missing(
    builder: Builder, copy: MachineCopy, tmp_path: Path
) -> None:
    copy.run(*_INSTALL["deb"], *copy.lend(builder.build(tmp_path, "deb", ALL)))
    for name, missing in (
        ("scheduler", "tenants.toml"),
        ("gateway", "gateway.json: default_images: "),
    ):
        user = f"hpcc-{name}"
        ids = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        config = f"/etc/hpcc/{name}/{name}.json"
        # systemd makes it.
        copy.run("install", "-d", "-o", user, "-m", "700", f"/var/lib/{user}")
        said = copy.run(*ids, "hpcc", name, "--config", config, status=2)
        assert missing in said
