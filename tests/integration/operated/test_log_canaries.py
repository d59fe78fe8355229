"""No command line, path, source or secret is in a log of a farm, whatever fails there.

Logs of all tests are searched for secrets of their farms (`tests/conftest.py`), and those of each
farm of processes for command lines and sources. Here everything that is given to a farm is planted,
and everything is refused once.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import HpccError, RemoteFailure, RemoteRequest, RemoteResult, TenantId
from hpcc.identity.tls import PinnedPeer
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.scheduler.api import RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.enrolment import ask_to_enrol
from hpcc_testkit.farm.processes import IMAGE, ProcessFarm, process_farm
from hpcc_testkit.hostile.canaries import canary, check_logs
from hpcc_testkit.services.scraped import scrape
from hpcc_testkit.suite.pipes import gone

pytestmark = pytest.mark.timeout(600)
ACME = TenantId("acme")
ADMIN = "127.0.0.1:0"


async def refusals(farm: ProcessFarm) -> None:
    """Come with a wrong secret, a wrong session and a wrong token of enrolment."""
    peer = PinnedPeer.from_pem(farm.ready["certificate_pem"].encode())
    async with open_channel(
        f"{farm.ready['host']}:{farm.ready['port']}",
        certificate_pem=peer.certificate_pem, name=peer.name,
    ) as channel:  # fmt: skip
        client = SchedulerClient(channel)
        with pytest.raises(HpccError):
            await client.authenticate(
                secret=canary("secret"), tenant=ACME, principal="eve", client_version="t"
            )
        with pytest.raises(HpccError):
            await client.route(canary("session"), RouteAsk(tenant=ACME, image=IMAGE))
        token = f"hpcc-enrol-{canary('token')}"
        with pytest.raises(HpccError):
            await ask_to_enrol(channel, token=token, request=b"x", worker_id="w9")


def planted(farm: ProcessFarm, directory: Path, script: str) -> RemoteRequest:
    """Return a compile whose command, variables, directory and source have canaries."""
    source = directory / f"{canary('file')}.c"
    source.write_text(f"int x; // {canary('source')}\n")
    request = farm.request("planted")
    (given,) = request.inputs
    argv = ("sh", "-c", f"cp a.c a.o; {script}", f"-DKEY={canary('argv')}")
    env = (*request.env, ("API_TOKEN", canary("variable")))
    return replace(request, argv=argv, env=env, inputs=(replace(given, host_path=str(source)),))


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_log_of_a_farm_holds_a_command_line_a_path_a_source_or_a_secret(
    tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / canary("directory")
    directory.mkdir()
    fields = {"log_format": form, "admin": ADMIN}

    def compiles(farm: ProcessFarm) -> list[object]:
        said = f"echo {canary('stderr')} >&2; cat a.c >&2"
        missing = replace(planted(farm, directory, ""), argv=(f"/{canary('program')}",))
        requests = (
            planted(farm, directory, "true"),
            planted(farm, directory, f"{said}; exit 3"),
            planted(farm, directory, "rm a.o"),
            planted(farm, directory, "kill -9 $$"),
            missing,
        )
        with farm.client() as client:
            return [client.compile(request, lambda: False) for request in requests]

    def cut(farm: ProcessFarm) -> object:
        with farm.client() as client:
            return client.compile(
                planted(farm, directory, "touch ../began; sleep 60"), lambda: False
            )

    async with process_farm(tmp_path, scheduler=fields, **fields) as farm:
        await refusals(farm)
        first, second, *_ = await asyncio.to_thread(compiles, farm)
        assert isinstance(first, RemoteResult)
        assert isinstance(second, RemoteResult)
        assert (first.exit_code, second.exit_code) == (0, 3)
        pages = [
            await asyncio.to_thread(scrape, ready["admin"])
            for ready in (farm.ready, farm.worker_ready)
        ]
        going = asyncio.create_task(asyncio.to_thread(cut, farm))
        while (await asyncio.to_thread(scrape, farm.worker_ready["admin"])).value(  # noqa: ASYNC110 - another process
            "hpcc_worker_slots", state="busy"
        ) == 0:
            await asyncio.sleep(0.1)
        assert farm.worker is not None
        farm.worker.terminate()  # it waits for the compile, in vain
        await gone(farm.worker)
        assert isinstance(await going, RemoteFailure)
    assert (tmp_path / "scheduler.log").stat().st_size > 0, "there is a log to be searched"
    (tmp_path / "dispatchers.log").write_text(capfd.readouterr().err)
    (tmp_path / "figures.log").write_text("".join(page.text for page in pages))
    check_logs(tmp_path, (str(directory), str(tmp_path / "sources")))


def test_a_text_that_was_planted_is_found(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    log, planted_text = tmp_path / "some/service.log", canary("here")
    log.write_text("nothing")
    check_logs(tmp_path)
    log.write_text(f"token {planted_text[:-1]}")
    check_logs(tmp_path)
    log.write_text(f"token {planted_text} refused\n")
    with pytest.raises(AssertionError, match=r"service\.log"):
        check_logs(tmp_path)
