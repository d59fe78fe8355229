"""farm-session.json: what the scheduler said when the daemon last logged in, for its whole process.

The dispatcher writes it, 0600, the daemon and `hpcc doctor` read it: the tenant's policy, and which
compilers the image has. Whoever may write it may also change hpcc.toml: it is their own machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcc.config.farm import Farm
from hpcc.core import (
    FALLBACKS,
    MAX_TOOLCHAINS_BYTES,
    PARITIES,
    CallerError,
    ClientPolicy,
    Toolchain,
    toolchain_table,
    toolchains_of,
)

_MAX_BYTES: Final = MAX_TOOLCHAINS_BYTES + (8 << 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmSession:
    """One answer of `Authenticate`; `compilers` is None where the image was not asked yet."""

    scheduler: str
    tenant: str
    image: str
    expires_at: float
    policy: ClientPolicy
    compilers: tuple[Toolchain, ...] | None

    def is_of(self, farm: Farm) -> bool:
        """Say whether it speaks of this farm and image."""
        return (self.scheduler, self.tenant, self.image) == (
            farm.scheduler,
            farm.tenant,
            farm.image,
        )

    def to_json(self) -> str:
        compilers = self.compilers
        table = {
            "scheduler": self.scheduler,
            "tenant": self.tenant,
            "image": self.image,
            "expires_at": self.expires_at,
            "fallback": self.policy.fallback,
            "parity": self.policy.parity,
            "compilers": None if compilers is None else [toolchain_table(c) for c in compilers],
        }
        return json.dumps(table, indent=1, sort_keys=True) + "\n"


def load_farm_session_or_none(path: Path) -> FarmSession | None:
    """Read the file; None where there is none, or one that hpcc did not write."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        return _parsed(raw) if len(raw) <= _MAX_BYTES else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, CallerError):
        return None


def _parsed(raw: bytes) -> FarmSession | None:
    table: Any = json.loads(raw)
    names = ("scheduler", "tenant", "image")
    fallback, parity = table["fallback"], table["parity"]
    if (
        not all(isinstance(table[name], str) for name in names)
        or type(table["expires_at"]) is not float
        or (fallback is not None and fallback not in FALLBACKS)
        or (parity is not None and parity not in PARITIES)
    ):
        return None
    compilers = table["compilers"]
    return FarmSession(
        **{name: table[name] for name in names},
        expires_at=table["expires_at"],
        policy=ClientPolicy(fallback=fallback, parity=parity),
        compilers=None if compilers is None else toolchains_of(compilers),
    )
