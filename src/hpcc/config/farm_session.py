"""farm-session.json: the scheduler's answer to the daemon's last login, valid for its process.

It holds the tenant's policy, the image's compilers, what the tenant accepts of results, and whether
the workers see each other's claims. The dispatcher writes it with mode 0600, the daemon and `hpcc
doctor` read it. It is trusted: a user who can write it can also change hpcc.toml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from hpcc.config.farm import Farm
from hpcc.core import (
    FALLBACKS,
    MAX_TOOLCHAINS_BYTES,
    PARITIES,
    CallerError,
    ClientPolicy,
    GuestReuse,
    Isolation,
    SharingPolicy,
    Toolchain,
    toolchain_table,
    toolchains_of,
)
from hpcc.core.basis import FarmTerms

# "": the tenant shares nothing by agreement, or no route was asked for yet. "together": one worker,
# or workers with a common store. "apart": workers that do not see each other's claims.
Agreement = Literal["", "together", "apart"]
_AGREEMENTS: Final[tuple[Agreement, ...]] = ("", "together", "apart")
_MAX_BYTES: Final = MAX_TOOLCHAINS_BYTES + (8 << 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmSession:
    """One answer of `Authenticate`; `compilers` is None if the image was not probed yet.

    `terms` are those of the last route, None before the first one.
    """

    scheduler: str
    tenant: str
    image: str
    expires_at: float
    policy: ClientPolicy
    compilers: tuple[Toolchain, ...] | None
    agreement: Agreement = ""
    terms: FarmTerms | None = None

    def is_of(self, farm: Farm) -> bool:
        """Return whether it belongs to this farm and image."""
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
            "agreement": self.agreement,
            "terms": None if self.terms is None else _terms_table(self.terms),
            "compilers": None if compilers is None else [toolchain_table(c) for c in compilers],
        }
        return json.dumps(table, indent=1, sort_keys=True) + "\n"


def _terms_table(terms: FarmTerms) -> dict[str, str]:
    return {
        "minimum_isolation": terms.minimum_isolation.value,
        "guest_reuse": terms.guest_reuse.value,
        "sharing": terms.sharing.text,
    }


def load_farm_session_or_none(path: Path) -> FarmSession | None:
    """Return the session in the file; None if it is absent or hpcc did not write it."""
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
    compilers, agreement = table["compilers"], table.get("agreement", "")
    terms = table.get("terms")
    if agreement not in _AGREEMENTS:
        return None
    return FarmSession(
        **{name: table[name] for name in names},
        expires_at=table["expires_at"],
        policy=ClientPolicy(fallback=fallback, parity=parity),
        compilers=None if compilers is None else toolchains_of(compilers),
        agreement=cast("Agreement", agreement),
        terms=None if terms is None else _terms_of(terms),
    )


def _terms_of(table: dict[str, str]) -> FarmTerms:
    return FarmTerms(
        minimum_isolation=Isolation(table["minimum_isolation"]),
        guest_reuse=GuestReuse(table["guest_reuse"]),
        sharing=SharingPolicy.parse(table["sharing"]),
    )
