"""farm.json: what `hpcc up` or `hpcc login` leaves for the daemon: scheduler, tenant, image.

Owned by the user, mode 0600: that of `hpcc up` holds the bearer secret of the one static tenant.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, ImageRef, TenantId

MAX_FARM_FILE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Farm:
    """How to reach a farm.

    `scheduler` is host:port; `scheduler_certificate_pem` the only root trusted for it;
    `secret` proves the principal to the scheduler, or else `login`, the path of a login file
    whose tokens do; `pid` is the supervisor of `hpcc up`.
    """

    scheduler: str
    scheduler_certificate_pem: str
    tenant: str
    principal: str
    secret: str
    image: str
    isolation: str
    pid: int = 0
    login: str = ""

    def __post_init__(self) -> None:
        """Check the two names that are used as keys and paths."""
        TenantId(self.tenant)
        ImageRef.parse(self.image)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def load_farm_or_none(path: Path) -> Farm | None:
    """Read farm.json; None when there is no farm.

    Raises:
        CallerError: the file is there and is not what hpcc writes.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FARM_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="farm-file") from error
    return parse_farm(raw, source=str(path))


def parse_farm(raw: bytes, *, source: str = "farm.json") -> Farm:
    """Read the bytes of farm.json.

    Raises:
        CallerError: they are not what hpcc writes.
    """
    hint = f"{source} is damaged: run `hpcc down`, then `hpcc up` (or `hpcc logout`, `hpcc login`)"
    try:
        if len(raw) > MAX_FARM_FILE_BYTES:
            raise CallerError(hint, reason="farm-file")
        table = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CallerError(hint, reason="farm-file") from error
    types = {f.name: (int if f.name == "pid" else str) for f in fields(Farm)}
    if isinstance(table, dict):
        table.setdefault("login", "")  # written by an earlier version
    if not isinstance(table, dict) or any(
        type(table.get(name)) is not kind for name, kind in types.items()
    ):
        raise CallerError(hint, reason="farm-file")
    return Farm(**{name: table[name] for name in types})
