"""farm.json: what `hpcc up` or `hpcc login` writes for the daemon: scheduler, tenant, image.

The user owns it, with mode 0600. After `hpcc up` it holds the bearer secret of the static tenant.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from hpcc.config.settings import RemoteSettings
from hpcc.core import CallerError, ImageRef, Isolation, TenantId

MAX_FARM_FILE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Farm:
    """How to reach a farm.

    `scheduler` is host:port. `scheduler_certificate_pem` is the only root trusted for it. `secret`
    proves the principal to the scheduler; otherwise `login` is the path of a login file whose
    tokens do. `pid` is the supervisor of `hpcc up`.
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
    # Another REAPI service, from hpcc.toml. Then there is no scheduler.
    engine: str = ""
    engine_instance: str = ""
    engine_token_file: str = ""
    engine_ca_file: str = ""

    def __post_init__(self) -> None:
        """Check the two names that are used as keys and paths."""
        TenantId(self.tenant)
        ImageRef.parse(self.image)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def load_farm_or_none(path: Path) -> Farm | None:
    """Return the farm in farm.json; None when the file does not exist.

    Raises:
        CallerError: the file exists, and hpcc did not write it.
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
    """Return the farm in the bytes of farm.json.

    Raises:
        CallerError: hpcc did not write them.
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
        for name in ("login", *(n for n in types if n.startswith("engine"))):
            table.setdefault(name, "")  # written by an earlier version
    if not isinstance(table, dict) or any(
        type(table.get(name)) is not kind for name, kind in types.items()
    ):
        raise CallerError(hint, reason="farm-file")
    return Farm(**{name: table[name] for name in types})


def engine_farm_or_none(settings: RemoteSettings) -> Farm | None:
    """Return the engine of hpcc.toml as a farm; None if hpcc.toml names no engine.

    Raises:
        CallerError: `engine` without a pinned `engine_image`.
    """
    if not settings.engine:
        return None
    if not settings.engine_image:
        raise CallerError(
            "hpcc.toml: remote.engine needs remote.engine_image, repo@sha256:…, which "
            "hpcc sends to the engine as container-image",
            reason="config",
        )
    return Farm(
        scheduler="",
        scheduler_certificate_pem="",
        # Derived from its address, so that results of two engines are never mixed.
        tenant=f"engine-{hashlib.sha256(_place(settings).encode()).hexdigest()[:16]}",
        principal="",
        secret="",
        image=settings.engine_image,
        isolation=Isolation.FOREIGN_UNKNOWN.value,
        engine=settings.engine,
        engine_instance=settings.engine_instance,
        engine_token_file=settings.engine_token_file,
        engine_ca_file=settings.engine_ca_file,
    )


def _place(settings: RemoteSettings) -> str:
    return f"{settings.engine}\0{settings.engine_instance}"
