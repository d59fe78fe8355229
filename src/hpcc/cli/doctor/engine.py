"""The lines of `hpcc doctor --worker FILE` about the engine whose bot a worker is.

They ask each server what it supports and whether it has a blob. Both change nothing there: a
session would give this bot's leases to others.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.doctor.check import DoctorCheck
from hpcc.core import CallerError, Digest, HpccError, PolicyError

if TYPE_CHECKING:
    from hpcc.core import ImageDigest
    from hpcc.rpc.engine.link import EngineAddress
    from hpcc.worker.base.config import WorkerConfig
    from hpcc.worker.base.engine_config import EngineConfig

_COST: Final = "the bot gets no lease; the engine's other workers do"
_TRANSFER_COST: Final = "each lease fails: its inputs cannot be fetched"


async def engine_checks(file: Path) -> list[DoctorCheck]:
    """Make the lines for the config file of a worker; `file` is absolute."""
    from hpcc.config.service_file import load_service_file
    from hpcc.worker.base.config import WorkerConfig
    from hpcc.worker.serve_bot import engine_address

    try:
        config = load_service_file(file, WorkerConfig)
        engine = config.engine_or_none
    except HpccError as error:
        return [DoctorCheck(name="worker", state="missing", detail=str(error), cost=_COST)]
    if engine is None:
        detail = f"{config.worker_id} is a worker of hpcc's schedulers, and no engine's bot"
        return [DoctorCheck(name="worker", state="ok", detail=detail)]
    try:
        address = engine_address(engine)
    except HpccError as error:
        return [DoctorCheck(name="engine", state="missing", detail=str(error), cost=_COST)]
    servers = [await _server(address, endpoint) for endpoint in engine.endpoints]
    stores = [await _cas(address, endpoint) for endpoint in engine.cas_endpoints]
    return [*servers, *stores, _platform(config, engine)]


async def _server(address: EngineAddress, endpoint: str) -> DoctorCheck:
    from hpcc.rpc.engine.link import service_of
    from hpcc.rpc.reapi.foreign_service import connect_service

    try:
        async with connect_service(service_of(address, endpoint)) as client:
            found = await client.capabilities()
    except HpccError as error:
        return _refused("engine", endpoint, address, error, _COST)
    if not found.can_execute:
        return DoctorCheck(
            name="engine", state="degraded",
            detail=f"{endpoint} says that {_instance(address)} executes nothing with SHA-256",
            cost=_COST, remedy="look at the services of this instance in the engine's config",
        )  # fmt: skip
    return DoctorCheck(
        name="engine", state="ok", detail=f"{endpoint} answers for {_instance(address)}"
    )


async def _cas(address: EngineAddress, endpoint: str) -> DoctorCheck:
    from hpcc.rpc.engine.link import service_of
    from hpcc.rpc.reapi.foreign_service import connect_service

    try:
        async with connect_service(service_of(address, endpoint)) as client:
            await client.find_missing([Digest.of(b"hpcc doctor")])
    except HpccError as error:
        return _refused("engine's CAS", endpoint, address, error, _TRANSFER_COST)
    detail = f"{endpoint} answers for {_instance(address)}"
    return DoctorCheck(name="engine's CAS", state="ok", detail=detail)


def _refused(
    name: str, endpoint: str, address: EngineAddress, error: HpccError, cost: str
) -> DoctorCheck:
    """Say what a failed call means: nobody there, who asks, or what was asked for."""
    from hpcc.rpc.base.errors import UnauthenticatedError

    match error:
        case UnauthenticatedError() | PolicyError():
            said = "refuses this bot"
            remedy = "look at credentials and certificate_file of the section engine"
        case CallerError():
            said = f"does not serve {_instance(address)}"
            remedy = "look at instance of the section engine, and at the engine's config"
        case _:
            said, remedy = "does not answer", "look at endpoint, ca_file, and at the engine"
    return DoctorCheck(
        name=name, state="missing", detail=f"{endpoint} {said}: {error}", cost=cost, remedy=remedy
    )


def _instance(address: EngineAddress) -> str:
    return f"instance {address.instance!r}" if address.instance else "the instance without a name"


def _platform(config: WorkerConfig, engine: EngineConfig) -> DoctorCheck:
    """Check that the images are here, and say what clients have to ask for."""
    from hpcc.images.store import ImageStore
    from hpcc.ports import SystemClock
    from hpcc.worker.serve_bot import offered_properties

    # `get` would make lock files, which root's doctor would take from the worker's user.
    prepared = {image.digest for image in ImageStore(config.images, SystemClock()).list()}
    absent = _absent(engine, prepared)
    if absent:
        return DoctorCheck(
            name="platform", state="missing", detail=f"not prepared in {config.images}: {absent}",
            cost="the worker does not start", remedy=f"hpcc image pull {absent}",
        )  # fmt: skip
    offered = ", ".join(f"{name}={value}" for name, value in offered_properties(engine))
    return DoctorCheck(name="platform", state="ok", detail=f"the bot offers {offered}")


def _absent(engine: EngineConfig, prepared: Collection[ImageDigest]) -> str:
    """Return the first image that is not here, as `hpcc image pull` takes it; "" if all are."""
    for digest, image in engine.image_digests.items():
        if digest not in prepared:
            return image.removeprefix("docker://")
    return ""
