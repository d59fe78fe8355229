"""People of tenants of a farm under test, and the commands that they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hpcc.config.paths import Paths
from hpcc.core import Isolation, TenantId
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc_testkit.cache.launcher import launcher_environment
from hpcc_testkit.farm.in_process import FarmUnderTest
from hpcc_testkit.farm.policies import TenantsAuthenticator

_SECONDS: Final = 60


def tenants(*names: str) -> TenantsAuthenticator:
    """Return what admits everybody who names one of these tenants."""
    return TenantsAuthenticator(
        *(
            TenantPolicy(
                tenant=TenantId(name), identity=None, images=(), quotas=TenantQuotas(),
                minimum_isolation=Isolation.LOCAL_NONE, parity="ignore",
            )
            for name in names
        )
    )  # fmt: skip


def environment(farm: FarmUnderTest, who: str) -> dict[str, str]:
    """Return the environment of a person who is logged in, `tenant/person`."""
    tenant, person = who.split("/")
    env = launcher_environment(farm.directory / "homes" / who)
    paths = Paths.from_env(env)
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text(replace(farm.farm(person), tenant=tenant).to_json())
    paths.farm_file.chmod(0o600)
    return env


def hpcc(env: Mapping[str, str], *words: str) -> tuple[int, str, str]:
    """Run a command of hpcc; return its exit status and its two outputs."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcc.cli", *words], env=dict(env), check=False,
        capture_output=True, timeout=_SECONDS, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
