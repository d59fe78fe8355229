"""The pools of a scheduler's config file: which workers are in one, how many it may have.

Workers of a pool have the name of the pool's StatefulSet and a number. So a name tells its pool,
and `max_workers` limits the names that exist.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

from hpcc.core import CallerError
from hpcc.identity.oidc.http import check_provider_url
from hpcc.identity.oidc.verify import IdentityPolicy
from hpcc.routing.pools import PoolSize

MAX_POOLS: Final = 16
MAX_POOL_WORKERS: Final = 10_000
_MAX_SLOTS: Final = 4096
_MIN_TARGET: Final = 0.1
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
# The rest of a worker's name is "-" and a number.
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,98}-")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
# Names of Kubernetes (RFC 1123), and any audience.
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ACCOUNT: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_AUDIENCE: Final = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolIdentity:
    """Whose pods are workers of a pool: those of one service account, as one cluster signs.

    The keys of `issuer` come from its discovery document, over TLS by the roots in `ca_file` ("" is
    the system's), or from `keys_file`, a JWK set.
    """

    issuer: str
    audience: str
    namespace: str
    service_account: str
    ca_file: str = ""
    keys_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what no token of a pod can have."""
        check_provider_url(self.issuer)
        for name, form in (
            ("audience", _AUDIENCE), ("namespace", _NAMESPACE), ("service_account", _ACCOUNT),
        ):  # fmt: skip
            if not form.fullmatch(getattr(self, name)):
                raise CallerError(f"{name} is not a valid name", reason="config")
        for name in ("ca_file", "keys_file"):
            if getattr(self, name) and not getattr(self, name).startswith("/"):
                raise CallerError(f"{name} must be an absolute path", reason="config")
        if self.ca_file and self.keys_file:
            raise CallerError("ca_file and keys_file exclude each other", reason="config")

    @property
    def policy(self) -> IdentityPolicy:
        """The checks that a login has too."""
        subject = f"system:serviceaccount:{self.namespace}:{self.service_account}"
        return IdentityPolicy(
            issuer=self.issuer, audience=self.audience, claims=(("sub", (subject,)),)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPool:
    """One pool. `prefix` is all of a worker's name but its number: the StatefulSet's and "-"."""

    name: str
    prefix: str
    max_workers: int
    min_workers: int = 1
    slots_per_worker: int = 8
    target: float = 0.75
    # None: its workers need one-time tokens, as others do.
    enrol: PoolIdentity | None = None

    def __post_init__(self) -> None:
        """Refuse names and numbers that cannot work."""
        if not _NAME.fullmatch(self.name):
            raise self._wrong("the name must be 1 to 40 of a-z, 0-9 and '-'")
        if not _PREFIX.fullmatch(self.prefix):
            raise self._wrong("prefix must be the StatefulSet's name and '-'")
        if not 1 <= self.min_workers <= self.max_workers <= MAX_POOL_WORKERS:
            raise self._wrong(
                f"1 <= min_workers <= max_workers <= {MAX_POOL_WORKERS} must hold: a pool without"
                " a worker has no demand"
            )
        if not 1 <= self.slots_per_worker <= _MAX_SLOTS:
            raise self._wrong(f"slots_per_worker must be 1 to {_MAX_SLOTS}")
        if not _MIN_TARGET <= self.target <= 1:
            raise self._wrong(f"target must be {_MIN_TARGET} to 1")

    def _wrong(self, text: str) -> CallerError:
        return CallerError(f"pools.{self.name[:40]}: {text}", reason="config")

    def has(self, worker_id: str) -> bool:
        """Return whether a worker with this name is in the pool."""
        number = worker_id.removeprefix(self.prefix)
        return (
            number != worker_id
            and _NUMBER.fullmatch(number) is not None
            and int(number) < self.max_workers
        )

    @property
    def size(self) -> PoolSize:
        return PoolSize(
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            slots_per_worker=self.slots_per_worker,
            target=self.target,
        )


def read_pools(table: Mapping[str, object]) -> tuple[WorkerPool, ...]:
    """Return the pools of `pools` in a config file.

    Raises:
        CallerError: an unknown key, a wrong type or value, or two pools with the same workers.
    """
    if len(table) > MAX_POOLS:
        raise CallerError(f"pools: at most {MAX_POOLS}", reason="config")
    found = tuple(_pool(name, content) for name, content in table.items())
    if len({pool.prefix for pool in found}) < len(found):
        raise CallerError("pools: two have the same prefix", reason="config")
    return found


def _pool(name: str, content: object) -> WorkerPool:
    where = f"pools.{name[:40]}"
    values = _values(where, content, WorkerPool, {"name"})
    if "enrol" in values:
        inner = f"{where}.enrol"
        try:
            values["enrol"] = PoolIdentity(**_values(inner, values["enrol"], PoolIdentity, set()))
        except CallerError as error:
            # What a value itself refuses does not know where it is.
            is_named = str(error).startswith(inner)
            text = str(error) if is_named else f"{inner}: {error}"
            raise CallerError(text, reason="config") from error
    return WorkerPool(name=name, **values)


def _values(where: str, content: object, kind: type, left_out: set[str]) -> dict[str, Any]:
    """Return the fields of a dataclass, checked by their types."""
    if not isinstance(content, dict):
        raise CallerError(f"{where} must be an object", reason="config")
    known = {f.name: f for f in fields(kind) if f.name not in left_out}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise CallerError(f"{where}: unknown key {key[:80]!r}; {hint}", reason="config")
    values: dict[str, Any] = {}
    for key, field in known.items():
        if key not in content and field.default is MISSING:
            raise CallerError(f"{where}: key {key!r} is missing", reason="config")
        if key in content:
            values[key] = _value(f"{where}: {key}", str(field.type), content[key])
    return values


def _value(where: str, kind: str, value: object) -> object:
    if kind == "float" and type(value) in {int, float}:
        return value
    if (kind == "int" and type(value) is int) or (kind == "str" and isinstance(value, str)):
        return value
    if kind not in {"float", "int", "str"}:
        return value  # a section, which is read as one
    raise CallerError(f"{where}: must be {kind}", reason="config")
