"""The `engine` section of a worker's config file: a foreign engine whose bot the worker is.

"engine": {
    "endpoint": "grpcs://buildgrid.example.com", "instance": "main", "tenant": "acme",
    "images": ["docker://registry.example.com/gcc@sha256:…"],
    "credentials": "/etc/hpcc/engine.json"
}
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.config.service_file import parse_service_file
from hpcc.core import CallerError, ImageDigest, ImageRef, TenantId, check_endpoint
from hpcc.reapi.resource import check_instance

# An engine keeps an entry for each set of a bot's properties: 2 to the power of their number.
MAX_IMAGES: Final = 8
MAX_ENDPOINTS: Final = 8
_POOL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """An engine that speaks REAPI to its clients and RWAPI to its bots, such as BuildGrid.

    `endpoint` is grpcs://HOST[:PORT], or grpc:// on loopback; or several with commas, which are
    servers of one engine. `cas` is the same for its CAS, where that is another service. `tenant` is
    whose guests, stores and audit rows its actions get. `images` are the values of the platform
    property `container-image` that the bot offers, spelled as the engine's clients spell them.
    """

    endpoint: str
    instance: str
    tenant: str
    images: tuple[str, ...]
    cas: str = ""
    # The value of the platform property `Pool` that the bot offers; "": none.
    pool: str = ""
    # A JSON file of mode 0600 with `token`, which is sent as a bearer. Read again each minute.
    credentials: str = ""
    # PEM files: the roots that the engine's certificate must have ("": gRPC's), and what the bot
    # shows to an engine that asks for a certificate.
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    # Of one action: all files of its input tree, each once, and one file.
    max_input_bytes: int = 2 << 30
    max_file_bytes: int = 256 << 20
    # How long the inputs of an action may take to arrive, and its outputs to leave.
    transfer_seconds: float = 300.0
    # How long one call may take, beside what is transferred.
    call_seconds: float = 10.0
    # How long an idle bot waits for the engine's answer; engines answer sooner.
    poll_seconds: float = 60.0
    # How often a busy bot asks whether its leases still hold.
    busy_seconds: float = 1.0
    # Without an answer for so long the bot ends what it runs: the engine gives it to others.
    lost_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name, endpoints in (("endpoint", self.endpoints), ("cas", self.cas_endpoints)):
            if len(endpoints) > MAX_ENDPOINTS:
                raise _wrong(f"{name} names more than {MAX_ENDPOINTS} servers")
            for endpoint in endpoints:
                try:
                    check_endpoint(endpoint, secure="grpcs", plain="grpc")
                except CallerError as error:
                    raise _wrong(f"{name}: {error}") from error
        check_instance(self.instance)
        TenantId(self.tenant)
        if not 0 < len(self.images) <= MAX_IMAGES:
            raise _wrong(f"images must be 1 to {MAX_IMAGES} values of container-image")
        if len(self.image_digests) != len(self.images):
            raise _wrong("two values of images name one image, and a bot offers each image once")
        if self.pool and not _POOL.fullmatch(self.pool):
            raise _wrong("pool must be a word of at most 128 characters")
        self._check_files()
        times = (self.transfer_seconds, self.call_seconds, self.poll_seconds, self.busy_seconds)
        if min(*times, self.lost_seconds, self.max_input_bytes, self.max_file_bytes) <= 0:
            raise _wrong("times and sizes must be positive")
        if self.busy_seconds + self.call_seconds >= self.lost_seconds:
            raise _wrong("lost_seconds must be more than call_seconds and busy_seconds together")

    def _check_files(self) -> None:
        files = (self.credentials, self.ca_file, self.certificate_file, self.key_file)
        if any(path and not Path(path).is_absolute() for path in files):
            raise _wrong("credentials, ca_file, certificate_file, key_file must be absolute paths")
        if bool(self.certificate_file) != bool(self.key_file):
            raise _wrong("certificate_file and key_file belong together")

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The engine's servers."""
        return tuple(part.strip() for part in self.endpoint.split(","))

    @property
    def cas_endpoints(self) -> tuple[str, ...]:
        """The servers of its CAS."""
        return tuple(part.strip() for part in (self.cas or self.endpoint).split(","))

    @property
    def image_digests(self) -> Mapping[ImageDigest, str]:
        """The images that the bot offers, with the value of the property.

        Raises:
            CallerError: one is not pinned.
        """
        return {ImageRef.parse(image).digest: image for image in self.images}

    @property
    def principal(self) -> str:
        """The principal of audit rows: an engine does not tell its bots whose action it is."""
        return f"engine:{self.instance}"

    @property
    def name(self) -> str:
        """What audit rows call the engine."""
        return f"{self.endpoints[0]}/{self.instance}".removesuffix("/")


def parse_engine_or_none(
    table: Mapping[str, object], image_digests: Collection[str]
) -> EngineConfig | None:
    """Read the section; None if it is empty. `image_digests` are those that the worker offers.

    Raises:
        CallerError: a key, type or value is unknown, or an image is not one of the worker's.
    """
    if not table:
        return None
    engine = parse_service_file(json.dumps(table).encode(), EngineConfig, source="engine")
    for digest, image in engine.image_digests.items():
        if digest.value not in image_digests:
            raise _wrong(f"{image[:200]} of images must be one of image_digests, too")
    return engine


def _wrong(text: str) -> CallerError:
    return CallerError(f"engine: {text}", reason="config")
