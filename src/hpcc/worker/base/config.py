"""The configuration file of a worker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.audit.base.spool_limits import SpoolLimits, retention_role
from hpcc.audit.observed_config import ObservedConfig
from hpcc.config.backends import BACKENDS
from hpcc.config.settings import (
    GUEST_OVERHEAD_MIB,
    MAX_AHEAD_GUESTS,
    default_containerd,
    default_guests_mib,
)
from hpcc.core import (
    CallerError,
    GuestMitigations,
    GuestReuse,
    ImageDigest,
    ImageRef,
    check_port,
)
from hpcc.rpc.base.connection_limit import CONNECTIONS_PER_ADDRESS, check_connections
from hpcc.rpc.scheduler.schedulers import split_schedulers
from hpcc.worker.base.engine_config import EngineConfig, parse_engine_or_none
from hpcc.worker.base.stores_config import parse_stores

AUDIT_KEY_NAME: Final = "audit-signing.key"
# Kernel and agent take 100 MiB.
MIN_GUEST_MIB: Final = 256
_ANYWHERE: Final = frozenset({"", "0.0.0.0", "::", "[::]"})  # noqa: S104 - refused, not bound
_WORKER_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(ObservedConfig):
    """Content of the config file of `python -m hpcc.worker`.

    Directories: `keys` (TLS identity), `store` (CAS and action cache), `audit` (the trail),
    `images` (prepared images), `guest_assets` (kernel and agent), `state` (of the runtime).
    `scheduler` is host:port of a scheduler's port for workers, or several with commas; the worker
    uses any of them. `engine` is in its place for the bot of a foreign engine. `image_digests` are
    the images offered. `prewarm_*` boot a guest before the worker is ready.
    """

    worker_id: str
    keys: Path
    store: Path
    audit: Path
    images: Path
    guest_assets: Path
    state: Path
    image_digests: tuple[str, ...]
    scheduler: str = ""
    scheduler_certificate_pem: str = ""
    # In place of a scheduler: the foreign engine whose bot this worker is. See
    # `hpcc.worker.base.engine_config`.
    engine: Mapping[str, object] = field(default_factory=dict)
    # If `keys` holds no certificate, the worker enrols when it starts: `enrol_at` is a scheduler's
    # port for daemons, `enrol_token_file` holds a one-time token. Same as `hpcc worker enrol`.
    enrol_at: str = ""
    enrol_token_file: str = ""
    # Or the token of this pod, which the kubelet writes anew before it ends: see `read_pod_token`.
    enrol_pod_token_file: str = ""
    # How long schedulers know a new result key before it signs.
    result_key_announce_seconds: float = 60.0
    host: str = "127.0.0.1"
    port: int = 0
    # Connections of one address: see `CONNECTIONS_PER_ADDRESS`.
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    runtime: str = "auto"
    accelerator: str = "auto"
    # Where containerd listens: for runtime = "process" and, on Windows, every guest.
    containerd: str = default_containerd()
    # Windows only: images that containerd fetches when the worker starts, name@sha256:…
    pull_images: tuple[str, ...] = ()
    guest_reuse: str = GuestReuse.PRINCIPAL.value
    guest_mitigations: str = GuestMitigations.AUTO.value
    # The bundle of kernel and agent that guests boot from; "": what this machine offers.
    guest_bundle: str = ""
    guest_memory_mib: int = 1024
    # For images whose guests need more or less: sha256:… to MiB.
    guest_memory_by_image: Mapping[str, int] = field(default_factory=dict)
    vcpus: int = 2
    max_guests: int = 2
    # The memory that all guests together may take, in MiB.
    memory_mib: int = field(default_factory=default_guests_mib)
    # A guest ends when it was idle for so long, or after its last compile once it has this age.
    idle_seconds: float = 600.0
    session_seconds: float = 14_400.0
    # How many guests may boot or be unused because a build announced its compiles; 0: none.
    ahead_guests: int = 32
    # An idle guest is parked after as long as so many starts of a guest take, but not before
    # `park_seconds`; 0 starts: never before `idle_seconds`.
    park_after_starts: float = 100.0
    park_seconds: float = 60.0
    # How long running compiles may take to finish when the worker stops: as long as the longest
    # (`max_wall_seconds`), so that a restart cuts none.
    drain_seconds: float = 600.0
    # Compiles that wait for a guest: several builds of `make -j64` at once.
    max_queue: int = 256
    boot_timeout_seconds: float = 120.0
    max_wall_seconds: float = 600.0
    max_store_bytes: int = 20 << 30
    # argv holds paths of the tenant; a policy may keep it out of the row, which keeps its digest.
    audit_argv: bool = True
    # The trail's files: see `SpoolLimits`. 0 days keeps everything until `audit_max_bytes`.
    audit_segment_bytes: int = 64 << 20
    audit_max_bytes: int = 16 << 30
    audit_keep_days: float = 0.0
    # Public keys (hex) of the people who hold and release rows, and how many of them must sign to
    # release or to allow removal. With keys, nothing is removed that they did not allow.
    audit_retention_keys: tuple[str, ...] = ()
    audit_retention_quorum: int = 1
    # A further place for the trail: "scheduler" sends it to the scheduler, which stores it.
    audit_sink: str = ""
    # A bucket for sealed segments: https://host, bucket and prefix; the credential is in a file of
    # mode 0600. 0 lock days leave retention to the bucket's default.
    audit_s3_endpoint: str = ""
    audit_s3_bucket: str = ""
    audit_s3_prefix: str = ""
    audit_s3_region: str = "us-east-1"
    audit_s3_credential_file: str = ""
    audit_s3_ca_file: str = ""
    audit_s3_lock_days: float = 0.0
    # Inputs for `hpcc audit reproduce`: kept for so many days, up to so many bytes per tenant
    # (least recently used are removed first). 0 days keeps nothing.
    retain_days: float = 7.0
    retain_bytes: int = 2 << 30
    # The lists of inputs for `hpcc audit sources`: kept as long as rows, up to so many bytes for
    # each tenant. Nothing is removed to make room. 0 keeps none.
    audit_sources_bytes: int = 2 << 30
    # Guests restored from snapshots, which are stored under `state` in up to so many bytes.
    warm_start: bool = True
    max_snapshot_bytes: int = 8 << 30
    # Which blobs and results other workers share: see `hpcc.worker.base.stores_config`.
    stores: Mapping[str, object] = field(default_factory=dict)
    prewarm_tenant: str = ""
    prewarm_principal: str = ""

    @property
    def end_seconds(self) -> float:
        """How long a stop may take: after the drain guests end, and callers fetch outputs."""
        return self.drain_seconds + 60.0

    @property
    def audit_limits(self) -> SpoolLimits:
        """The size and age limits of the trail's files.

        Raises:
            CallerError: the limits contradict each other.
        """
        return SpoolLimits(
            segment_bytes=self.audit_segment_bytes,
            max_bytes=self.audit_max_bytes,
            keep_seconds=self.audit_keep_days * 86_400,
            # The bucket receives only sealed segments: a record is there within an hour.
            seal_seconds=3600.0 if self.audit_s3_endpoint else 0.0,
            role=retention_role(self.audit_retention_keys, self.audit_retention_quorum),
        )

    def _check_addresses(self) -> None:
        """Refuse addresses now that would fail only after the minutes of a first start."""
        if self.engine:
            self._check_bot()
        else:
            split_schedulers(self.scheduler)
        if self.enrol_at:
            split_schedulers(self.enrol_at)
        self.check_observed()
        if self.host in _ANYWHERE:
            raise CallerError(
                f"host must be a name or address that clients reach, not {self.host}: it"
                " is what they dial",
                reason="config",
            )

    def _check_bot(self) -> None:
        """Refuse what a bot cannot have, because it has no scheduler and serves no clients."""
        _ = self.engine_or_none
        others = ("scheduler", "scheduler_certificate_pem", "enrol_at", "audit_sink", "stores")
        for name in (*others, "prewarm_tenant"):
            if getattr(self, name):
                raise CallerError(
                    f"a worker with an engine has no {name}: it is the engine's bot, and belongs to"
                    " no farm",
                    reason="config",
                )

    @property
    def engine_or_none(self) -> EngineConfig | None:
        """The engine whose bot this worker is; None if it belongs to a farm.

        Raises:
            CallerError: the section has another form.
        """
        return parse_engine_or_none(self.engine, self.image_digests)

    def _check_enrolment(self) -> None:
        files = [f for f in (self.enrol_token_file, self.enrol_pod_token_file) if f]
        if len(files) != bool(self.enrol_at):
            raise CallerError(
                "enrol_at and either enrol_token_file or enrol_pod_token_file belong together"
            )
        if files and not Path(files[0]).is_absolute():
            raise CallerError("the file of the enrolment token must be an absolute path")

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        check_port("port", self.port)
        check_connections(self.connections_per_address)
        self._check_addresses()
        self._check_audit()
        if not _WORKER_ID.fullmatch(self.worker_id):
            raise CallerError("worker_id must be 1 to 128 of a-z, 0-9, '.' and '-'")
        parse_stores(self.stores)
        for digest in self.image_digests:
            ImageDigest(digest)
        self._check_enrolment()
        self._check_runtime()
        self._check_idle_guests()
        if self.accelerator not in {"auto", "tcg"}:
            raise CallerError("accelerator must be auto or tcg")
        if self.guest_reuse not in {r.value for r in GuestReuse}:
            raise CallerError("guest_reuse must be exec, principal or tenant")
        if self.guest_mitigations not in {m.value for m in GuestMitigations}:
            raise CallerError("guest_mitigations must be auto, on or off")
        if min(self.guest_memory_mib, self.vcpus, self.max_guests, self.max_queue) <= 0:
            raise CallerError("guest_memory_mib, vcpus, max_guests and max_queue must be positive")
        if min(self.idle_seconds, self.session_seconds, self.drain_seconds) <= 0:
            raise CallerError("idle_seconds, session_seconds and drain_seconds must be positive")
        if self.result_key_announce_seconds < 0:
            raise CallerError("result_key_announce_seconds must not be negative")
        if self.max_snapshot_bytes <= 0:
            raise CallerError("max_snapshot_bytes must be positive; warm_start = false is for none")
        self._check_sizes()

    def memory_of(self, image: ImageDigest) -> int:
        """Return the memory of a guest of this image, in MiB."""
        return self.guest_memory_by_image.get(image.value, self.guest_memory_mib)

    def _check_sizes(self) -> None:
        sizes: Mapping[str, object] = self.guest_memory_by_image  # from a file: not checked yet
        for image, mib in sizes.items():
            if image not in self.image_digests:
                raise CallerError(
                    f"guest_memory_by_image: {image[:80]} is not one of image_digests"
                )
            if isinstance(mib, bool) or not isinstance(mib, int) or mib < MIN_GUEST_MIB:
                raise CallerError(
                    f"guest_memory_by_image: a guest needs {MIN_GUEST_MIB} MiB or more"
                )
        most = max([self.guest_memory_mib, *self.guest_memory_by_image.values()])
        if self.memory_mib < most + GUEST_OVERHEAD_MIB:
            raise CallerError(
                f"memory_mib ({self.memory_mib}) is too little for one guest: guest_memory_mib "
                f"({most}) and {GUEST_OVERHEAD_MIB} for its VMM"
            )

    def _check_idle_guests(self) -> None:
        if self.park_after_starts < 0 or self.park_seconds <= 0:
            raise CallerError(
                "park_seconds must be positive; park_after_starts = 0 is for guests that stay"
            )
        if not 0 <= self.ahead_guests <= MAX_AHEAD_GUESTS:
            raise CallerError(f"ahead_guests must be 0 to {MAX_AHEAD_GUESTS}")

    def _check_runtime(self) -> None:
        if self.guest_bundle:
            ImageDigest(self.guest_bundle)  # of the same form
        if self.runtime not in BACKENDS:
            raise CallerError(f"runtime must be {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
        for image in self.pull_images:
            if ImageRef.parse(image).digest.value not in self.image_digests:
                raise CallerError("each of pull_images must be one of image_digests, too")

    def _check_audit(self) -> None:
        _ = self.audit_limits
        if self.audit_sink not in {"", "scheduler"}:
            raise CallerError('audit_sink must be "" or "scheduler"')
        if self.audit_s3_endpoint and not (self.audit_s3_bucket and self.audit_s3_credential_file):
            raise CallerError("audit_s3_endpoint needs audit_s3_bucket, audit_s3_credential_file")
        is_plain = self.audit_s3_endpoint.startswith(("http://127.0.0.1:", "http://[::1]:"))
        if self.audit_s3_endpoint and not (
            self.audit_s3_endpoint.startswith("https://") or is_plain
        ):
            raise CallerError("audit_s3_endpoint must be https://…")
        if self.audit_s3_lock_days < 0:
            raise CallerError("audit_s3_lock_days must not be negative")
        if self.audit_sources_bytes < 0:
            raise CallerError("audit_sources_bytes must not be negative; 0 keeps nothing")
        if self.retain_days < 0 or self.retain_bytes <= 0:
            raise CallerError("retain_days and retain_bytes must be positive; 0 days keeps nothing")
