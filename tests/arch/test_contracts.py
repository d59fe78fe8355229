"""Every import contract works: lint-imports reports a forbidden import that the test adds."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The program takes 20 seconds on an idle machine, and minutes beside other suites.
_SECONDS = 600
pytestmark = pytest.mark.timeout(_SECONDS + 60)
# Contract: the module that gets a line, and that line.
PLANTS = {
    "layers": ("hpcc/core/names.py", "import hpcc.wire.launcher"),
    "sans-io": ("hpcc/reapi/tree.py", "import socket"),
    "key": ("hpcc/cache/key/relocate.py", "import os"),
    "route-only": ("hpcc/scheduler/registry.py", "import hpcc.store.memory"),
    "agent": ("hpcc/agent/base/service.py", "import hpcc.config.paths"),
    "helper": ("hpcc/helper/__main__.py", "import hpcc.config.paths"),
    "warden": ("hpcc/warden/session.py", "import hpcc.identity.keys"),
    "proto": ("hpcc/store/memory.py", "import hpcc._proto.agent_pb2"),
    "testkit": ("hpcc/daemon/front.py", "import hpcc_testkit.suite.mutants"),
    "rooms-cache": ("hpcc/cache/key/prepare.py", "import hpcc.cache.inputs.closure"),
    "rooms-worker": ("hpcc/worker/pool/core.py", "import hpcc.worker.stores.quotas"),
    "rooms-scheduler": ("hpcc/scheduler/tenants/table.py", "import hpcc.scheduler.registry"),
    "rooms-rpc": ("hpcc/rpc/relay/__init__.py", "import hpcc.rpc.reapi.client"),
    "rooms-images": ("hpcc/images/oci/__init__.py", "import hpcc.images.assembly.erofs"),
    "rooms-agent": ("hpcc/agent/base/service.py", "import hpcc.agent.linux.main"),
    "rooms-cli": ("hpcc/cli/base/lock.py", "import hpcc.cli.farm.up"),
    "compiler-families": ("hpcc/compilers/gnu/flags.py", "import hpcc.compilers.clang.family"),
    "runtime": ("hpcc/runtime/qemu/argv.py", "import hpcc.runtime.runc.spec"),
    "msvc": ("hpcc/cache/key/prepare.py", "import hpcc.compilers.msvc.flags"),
}
# Runs in the copy, in one process: each start of lint-imports costs more than its check.
PROGRAM = """
import json, sys
from pathlib import Path
from importlinter import api  # noqa: F401 - configures the library
from importlinter.application.use_cases import _register_built_in_contract_types, create_report
from importlinter.application.use_cases import read_user_options

sys.path.insert(0, "")
_register_built_in_contract_types()
options = read_user_options(".importlinter")
plants = json.load(sys.stdin)

def broken(*only):
    report = create_report(options, limit_to_contracts=only, cache_dir=None)
    return [contract.name for contract, _ in report.get_contracts_and_checks() if not _.kept]

found = {"": broken()}
for contract, (file, line) in plants.items():
    path = Path(file)
    before = path.read_text()
    path.write_text(before + "\\n" + line + "\\n")
    found[contract] = broken(contract)
    path.write_text(before)
json.dump(found, sys.stdout)
"""


def contracts() -> dict[str, str]:
    """Return each contract's id and name."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    kind = "importlinter:contract:"
    return {
        s.removeprefix(kind): parser[s]["name"] for s in parser.sections() if s.startswith(kind)
    }


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the broken contracts per added import, and under "" those of the unchanged tree."""
    copy = tmp_path_factory.mktemp("tree")
    for package in ("src/hpcc", "testkit/hpcc_testkit"):
        skip = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / package, copy / Path(package).name, ignore=skip)
    shutil.copy(ROOT / ".importlinter", copy)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=copy,
        input=json.dumps(PLANTS),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_each_contract_has_its_violation() -> None:
    assert sorted(PLANTS) == sorted(contracts())


def test_the_tree_keeps_all_contracts(broken: dict[str, list[str]]) -> None:
    assert broken[""] == []


@pytest.mark.parametrize("contract", PLANTS)
def test_a_planted_import_breaks_its_contract(contract: str, broken: dict[str, list[str]]) -> None:
    assert contracts()[contract] in broken[contract]
