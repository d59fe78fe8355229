"""The configuration file of a scheduler: its tenants, keys, control store and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.observed_config import ObservedConfig
from hpcc.control.database import read_database_config
from hpcc.core import (
    CallerError,
    ImageDigest,
    Isolation,
    TenantId,
    check_port,
)
from hpcc.identity.token import MAX_LIFETIME_SECONDS, MAX_PRINCIPAL_CHARS
from hpcc.rpc.base.connection_limit import CONNECTIONS_PER_ADDRESS, check_connections
from hpcc.scheduler.base.build_limits import BuildLimits
from hpcc.scheduler.base.pools import WorkerPool, read_pools

_MIN_SECRET_CHARS = 32
_MAX_OPERATORS = 256
_MAX_BUILDS_MIB = 256
_MAX_BUILDS_DAYS = 366
# A living worker's key is refreshed once a day.
_MIN_KEY_DAYS, _MAX_KEY_DAYS = 2, 3650
# A rotation announces a key a minute before the key signs.
MIN_KEY_SECONDS = 300.0
# Records of security events. Their index takes about twice as much, and SQLite's log 4 MiB.
_MAX_EVENT_BYTES = 1 << 30
_DISK_PER_EVENTS = 8
_SEGMENTS = 64
# `tenants` of a scheduler whose table is in the control store.
IN_STORE = "control-store"
MIN_CERTIFICATE_SECONDS, MAX_CERTIFICATE_SECONDS = 60.0, 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig(ObservedConfig):
    """Content of the config file of `python -m hpcc.scheduler`.

    Either `tenants`, the absolute path of a tenants table (docs/operate.md) or `IN_STORE` for the
    one that `hpcc tenants apply` put into the control store, or one static
    `tenant` with its `tenant_secret` and `minimum_isolation`, the weakest label that its routes
    may have. `images` are the digests the static tenant may use; empty means any that a worker has.

    Either `state`, the directory of an embedded control store, or `database`, the URL of one that
    several schedulers share (docs/operate.md). With a database, its password and the key that seals
    the farm's signing keys are in files of mode 0600.
    """

    keys: Path
    # Path() is for "not given": with a database.
    state: Path = Path()
    database: str = ""
    database_password_file: str = ""
    sealing_key: str = ""
    tenants: str = ""
    tenant: str = ""
    tenant_secret: str = field(default="", repr=False)
    minimum_isolation: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    # The port for workers, over TLS with client certificates.
    worker_port: int = 0
    # A worker renews at half of this time; a worker that is off for longer must enrol again. A
    # revocation does not wait for it.
    worker_certificate_seconds: float = 7 * 86_400.0
    images: tuple[str, ...] = ()
    # Connections of one address to each port: see `CONNECTIONS_PER_ADDRESS`.
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    # Three missed heartbeats of a machine that is cut off. Lost guests are reported, and a dead
    # worker is noticed when its stream ends.
    lease_seconds: float = 10.0
    token_seconds: float = 300.0
    session_seconds: float = 3600.0
    # A worker's results become misses if it has not registered its key for so long.
    result_key_days: float = 90.0
    # A worker replaces its result key at this age; 0 leaves that to `rotate-result-key`.
    result_key_rotate_days: float = 0.0
    # How long a key signs before the next one follows.
    key_seconds: float = 7 * 86_400.0
    # Who sees the whole farm in `hpcc farm status`: TENANT/PRINCIPAL, as their logins prove it.
    # Everybody else sees their tenant. Only with `tenants`.
    operators: tuple[str, ...] = ()
    # Room in memory for what clients tell of their builds, for `hpcc farm builds`; 0 takes none.
    builds_mib: int = 16
    # A build that was reported last so long ago is dropped, however much room there is.
    builds_keep_days: int = 14
    # Sets of like workers that a cluster adds and removes, by name: see `WorkerPool`. A client
    # that reads how many are needed shows the token in this file, if there is one.
    pools: Mapping[str, object] = field(default_factory=dict)
    scale_token_file: str = ""
    # Its own security events; and the database URL for workers' audit records, if they are stored.
    events_keep_days: float = 400.0
    audit_database: str = ""
    audit_database_password_file: str = ""

    def __post_init__(self) -> None:
        """Refuse names, labels and secrets that cannot work."""
        check_port("port", self.port)
        check_port("worker_port", self.worker_port)
        check_connections(self.connections_per_address)
        self.check_observed()
        if self.port and self.port == self.worker_port:
            raise CallerError("port and worker_port must differ: workers show certificates there")
        if (
            not MIN_CERTIFICATE_SECONDS
            <= self.worker_certificate_seconds
            <= MAX_CERTIFICATE_SECONDS
        ):
            raise CallerError(
                f"worker_certificate_seconds must be {MIN_CERTIFICATE_SECONDS:g} to "
                f"{MAX_CERTIFICATE_SECONDS:g}"
            )
        self._check_result_keys()
        self._check_control()
        self._check_audit()
        self._check_shown()
        read_pools(self.pools)
        if self.scale_token_file and not self.scale_token_file.startswith("/"):
            raise CallerError("scale_token_file must be an absolute path")
        static = ("tenant", "tenant_secret", "minimum_isolation")
        if self.tenants:
            if not self.tenants.startswith("/") and self.tenants != IN_STORE:
                raise CallerError(f'tenants must be an absolute path, or "{IN_STORE}"')
            for name in (*static, "images"):
                if getattr(self, name):
                    raise CallerError(f"{name!r} and 'tenants' exclude each other")
            return
        for name in static:
            if not getattr(self, name):
                raise CallerError(f"key {name!r} is missing: it, or 'tenants'")
        self._check_static()

    @property
    def sealing_file(self) -> Path:
        """The file of the key that seals the signing keys."""
        return Path(self.sealing_key) if self.sealing_key else self.keys / "key-ring.seal"

    @property
    def worker_pools(self) -> tuple[WorkerPool, ...]:
        """The parsed `pools`."""
        return read_pools(self.pools)

    @property
    def build_limits(self) -> BuildLimits:
        """What is kept of builds. A person has an eighth of the room."""
        room = self.builds_mib << 20
        keep = self.builds_keep_days * 86_400
        return BuildLimits(total_bytes=room, person_bytes=room // 8, keep_seconds=keep)

    @property
    def events(self) -> Path:
        """The directory of this scheduler's own security events."""
        return (self.keys if self.database else self.state) / "events"

    def event_limits(self, disk_bytes: int) -> SpoolLimits:
        """Return size and age limits of the events' files, on a disk of this size; 0: any size.

        Callers without a login cause events. These take at most a part of the disk, so that nobody
        can fill it: the scheduler also writes keys and certificates there.
        """
        most = min(_MAX_EVENT_BYTES, disk_bytes // _DISK_PER_EVENTS or _MAX_EVENT_BYTES)
        return SpoolLimits(
            segment_bytes=max(most // _SEGMENTS, 1),
            max_bytes=max(most, 2),
            keep_seconds=self.events_keep_days * 86_400,
        )

    def _check_result_keys(self) -> None:
        if not _MIN_KEY_DAYS <= self.result_key_days <= _MAX_KEY_DAYS:
            raise CallerError(f"result_key_days must be {_MIN_KEY_DAYS} to {_MAX_KEY_DAYS}")
        if not 0 <= self.result_key_rotate_days <= _MAX_KEY_DAYS:
            raise CallerError(f"result_key_rotate_days must be 0 to {_MAX_KEY_DAYS}")

    def _check_shown(self) -> None:
        if not 0 <= self.builds_mib <= _MAX_BUILDS_MIB:
            raise CallerError(f"builds_mib must be 0 to {_MAX_BUILDS_MIB}")
        if not 1 <= self.builds_keep_days <= _MAX_BUILDS_DAYS:
            raise CallerError(f"builds_keep_days must be 1 to {_MAX_BUILDS_DAYS}")
        if self.operators and not self.tenants:
            raise CallerError("'operators' needs 'tenants': otherwise everybody is one")
        if len(self.operators) > _MAX_OPERATORS:
            raise CallerError(f"operators must be at most {_MAX_OPERATORS}")
        for name in self.operators:
            tenant, _, principal = name.partition("/")
            TenantId(tenant)
            if not 0 < len(principal) <= MAX_PRINCIPAL_CHARS or not principal.isprintable():
                raise CallerError(f"operators: {name[:80]!r} is not TENANT/PRINCIPAL")

    def _check_audit(self) -> None:
        _ = self.event_limits(0)
        if self.audit_database:
            read_database_config(self.audit_database)
        elif self.audit_database_password_file:
            raise CallerError("'audit_database_password_file' is for 'audit_database'")

    def _check_control(self) -> None:
        if bool(self.database) == (self.state != Path()):
            raise CallerError("either 'state' or 'database' must be given, and not both")
        for name in ("database_password_file", "sealing_key"):
            value = getattr(self, name)
            if value and not value.startswith("/"):
                raise CallerError(f"{name} must be an absolute path")
        if self.database:
            if not self.sealing_key:
                raise CallerError("with 'database', 'sealing_key' must name the farm's key file")
            read_database_config(self.database)
        elif self.database_password_file:
            raise CallerError("'database_password_file' is for 'database'")
        if self.key_seconds < MIN_KEY_SECONDS:
            raise CallerError(f"key_seconds must be at least {MIN_KEY_SECONDS:g}")
        if not 0 < self.token_seconds <= MAX_LIFETIME_SECONDS:
            raise CallerError(f"token_seconds must be at most {MAX_LIFETIME_SECONDS:g}")

    def _check_static(self) -> None:
        TenantId(self.tenant)
        for image in self.images:
            ImageDigest(image)
        try:
            Isolation(self.minimum_isolation)
        except ValueError as error:
            known = ", ".join(i.value for i in Isolation)
            raise CallerError(f"minimum_isolation must be one of {known}") from error
        if len(self.tenant_secret) < _MIN_SECRET_CHARS:
            raise CallerError(f"secrets must have at least {_MIN_SECRET_CHARS} characters")
