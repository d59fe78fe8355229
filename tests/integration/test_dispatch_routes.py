"""The dispatcher keeps routes while they are valid and drops them as soon as their guest dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hpcc.core import RemoteFailure, RemoteInput, RemoteRequest, RemoteResult
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.farm import FarmConnection, connect_farm
from hpcc.ports import SystemClock
from hpcc.worker.execute.session import EventLimiter
from hpcc_testkit.farm.in_process import farm_under_test


def request_of(directory: Path, number: int) -> RemoteRequest:
    source = directory / "a.c"
    source.write_text("int x;\n")
    return RemoteRequest(
        argv=("sh", "-c", f"cp a.c a.o; echo {number}"),
        env=(("PATH", "/usr/bin:/bin"),),
        cwd="",
        inputs=(RemoteInput("a.c", str(source), False),),
        outputs=("a.o",),
    )


async def dropped(connection: FarmConnection) -> None:
    while connection._book.current is not None:  # noqa: ASYNC110 - the product has no event for it
        await asyncio.sleep(0.02)


async def test_a_route_is_asked_for_once_and_dropped_when_its_guest_dies(tmp_path: Path) -> None:
    clock = SystemClock()
    dispatcher = Dispatcher(clock, timeout_seconds=20.0, version="t", build_id="b")
    async with (
        farm_under_test(tmp_path) as farm,
        farm.serving(),
        connect_farm(farm.farm(), clock, "t") as connection,
    ):
        for number in range(2):
            result = await dispatcher.compile(connection, request_of(tmp_path, number))
            assert isinstance(result, RemoteResult), result
        first = connection._book.current
        assert first is not None
        farm.runtime.running[0].kill("crashed")
        async with asyncio.timeout(3):
            await dropped(connection)
        result = await dispatcher.compile(connection, request_of(tmp_path, 9))
        assert isinstance(result, RemoteResult), result
        assert connection._book.current is not None
        assert connection._book.current.generation > first.generation
    dispatcher.close()


async def test_an_input_that_changes_under_the_compile_is_never_sent_as_the_old(
    tmp_path: Path,
) -> None:
    clock = SystemClock()
    dispatcher = Dispatcher(clock, timeout_seconds=20.0, version="t", build_id="b")
    async with (
        farm_under_test(tmp_path) as farm,
        farm.serving(),
        connect_farm(farm.farm(), clock, "t") as connection,
    ):
        request = request_of(tmp_path, 1)
        worker = await connection.worker()
        assert worker.route.isolation.value == "local/none"
        read = dispatcher._read
        source = tmp_path / "a.c"

        def change_first(path: str, digest: object) -> object:
            source.write_text("int y;\n")
            return read(path, digest)

        dispatcher._read = change_first
        result = await dispatcher.compile(connection, request)
        assert isinstance(result, RemoteFailure)
        assert result.reason == "input-changed"
    assert farm.audit.rows == []
    dispatcher.close()


async def test_a_farm_with_a_damaged_certificate_says_what_to_do(tmp_path: Path) -> None:
    from dataclasses import replace

    import pytest

    from hpcc.core import CallerError

    async with farm_under_test(tmp_path) as farm:
        with pytest.raises(CallerError, match="hpcc up"):
            async with connect_farm(
                replace(farm.farm(), scheduler_certificate_pem="nonsense"), SystemClock(), "t"
            ):
                pass


async def test_a_flood_of_refusals_is_counted_and_not_written(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm:
        limiter = EventLimiter(farm.audit, SystemClock())
        for _ in range(200):
            await limiter.event("token-refused", "")
        assert len(farm.audit.events) < 60
        await asyncio.sleep(0.1)
        await limiter.event("token-refused", "")
        name, count = farm.audit.events[-1].fields[-1]
        assert name == "suppressed_before"
        assert int(count) > 100


async def test_a_token_that_was_copied_from_a_daemon_is_of_no_use(tmp_path: Path) -> None:
    import pytest

    from hpcc.core import Digest
    from hpcc.identity.proof import ProofKey
    from hpcc.rpc.base.errors import UnauthenticatedError
    from hpcc.rpc.reapi.client import ReapiClient
    from hpcc.rpc.reapi.service_calls import ReapiClientConfig

    clock = SystemClock()
    async with (
        farm_under_test(tmp_path) as farm,
        farm.serving(),
        connect_farm(farm.farm(), clock, "t") as connection,
    ):
        mine = await connection.worker()
        token, thief = mine.route.token, ProofKey()
        config = ReapiClientConfig(tenant=mine.tenant, tool_version="t")

        def theirs(method: str) -> str:
            return thief.sign(token, method, clock.now())

        def old(method: str) -> str:
            return mine.prove(method.replace("FindMissingBlobs", "BatchReadBlobs"))

        wanted = [Digest.of(b"x")]
        assert await ReapiClient(mine.channel, token, config, prove=mine.prove).find_missing(
            wanted
        ) == set(wanted)
        for prove in (None, theirs, old):
            with pytest.raises(UnauthenticatedError) as refused:
                await ReapiClient(mine.channel, token, config, prove=prove).find_missing(wanted)
            assert refused.value.reason == "token-proof"
        assert farm.audit.names() == ["token-refused"] * 3
        # A route that no key was named for is a bearer token: stock clients have no proofs.
        bearer = (await farm.route()).token
        assert await ReapiClient(mine.channel, bearer, config).find_missing(wanted)
