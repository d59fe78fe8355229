"""`hpcc explain` on a farm: why a colleague's result was not used, and where results differ.

A real compiler, dispatcher and worker. The guests are local processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from hpcc.cli.cache.farm_says import ask_farm, explanation_lines
from hpcc.config.paths import Paths
from hpcc.core import (
    ALL_SHARING,
    PRIVATE_ONLY,
    CallerError,
    Digest,
    NotFoundError,
    RemoteInput,
    RemoteRequest,
    RemoteResult,
    SharingPolicy,
)
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.explanation import Decision, Explanation
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc.worker.explain.limit import BURST
from hpcc_testkit.farm.actions import made_action
from hpcc_testkit.farm.in_process import IMAGE, TENANT
from hpcc_testkit.farm.several import build_on
from hpcc_testkit.hostile.rooted_farm import SCRIPT, SharingFarm, people, sharing_farm

NO_FRESH = SharingPolicy(agree=2)
RANDOM = "cat /proc/sys/kernel/random/uuid > a.o"
# CI's guests have executed nothing, so each of its results serves everybody.
CI = people(publish_fresh=("ci",))


class Checkout:
    """One person's checkout: sources, and compiles of them on the farm."""

    def __init__(self, farm: SharingFarm, person: str, directory: Path) -> None:
        self._farm, self._person, self._directory = farm, person, directory
        (directory / "src").mkdir(parents=True)
        self.write("src/a.c", '#include "config.h"\n#include "same.h"\nint a(void) { return N; }\n')
        self.write("src/same.h", "enum { SAME = 1 };\n")
        self.write("src/config.h", "enum { N = 1 };\n")

    def write(self, name: str, text: str) -> None:
        (self._directory / name).write_text(text)

    async def compile(self, *flags: str) -> RemoteResult:
        names = [f"src/{p.name}" for p in sorted((self._directory / "src").iterdir())]
        request = RemoteRequest(
            argv=("gcc", "-O1", *flags, "-c", "src/a.c", "-o", "a.o"),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            inputs=tuple(
                RemoteInput(n, str(self._directory / n), is_executable=False) for n in names
            ),
            outputs=("a.o",),
        )
        async with build_on(self._farm.farm, self._person) as made_for:
            outcome = await made_for.dispatcher.compile(made_for.connection, request)
        assert isinstance(outcome, RemoteResult), outcome
        assert outcome.exit_code == 0, outcome.stderr
        await self._farm.settled()
        return outcome

    async def ask(self, action: str, demand: SharingPolicy = ALL_SHARING) -> Explanation:
        farm = self._farm.farm
        return await ask_farm(farm.farm(self._person), farm.clock, Digest.parse(action), demand)


async def explained(farm: SharingFarm, action: str, directory: Path) -> str:
    """Return what `hpcc explain` prints to Ann of a compile that her daemon recorded."""
    env = {"HPCC_DIR": str(directory / "hpcc")}
    paths = Paths.from_env(env)
    for parent in (paths.farm_file.parent, paths.cache / "explain"):
        parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text(farm.farm.farm("ann").to_json())
    paths.farm_file.chmod(0o600)
    table = {
        "outcome": "miss.remote.executed", "output": "/p/a.o", "sources": ["/p/src/a.c"],
        "image": str(IMAGE), "action": action,
    }  # fmt: skip
    (paths.cache / "explain/records.jsonl").write_text(json.dumps(["c", "id", 5, table]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hpcc.cli", "explain", "/p/a.o",
        env=dict(os.environ) | env, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


@asynccontextmanager
async def team(tmp_path: Path) -> AsyncGenerator[tuple[SharingFarm, Checkout, Checkout]]:
    """Yield a farm, CI's checkout, and the one of Ann, whose guest is not fresh any more."""
    async with sharing_farm(tmp_path / "farm", CI) as farm:
        await farm.warm("ann")
        yield farm, Checkout(farm, "ci", tmp_path / "ci"), Checkout(farm, "ann", tmp_path / "ann")


def explain_rows(farm: SharingFarm) -> list[tuple[str, str]]:
    rows = farm.farm.audit.rows
    return [(r.principal, r.action_digest) for r in rows if r.cache_status == "explain"]


def refusals(farm: SharingFarm) -> list[dict[str, str]]:
    return [dict(e.fields) for e in farm.farm.audit.events if e.name == "explain-refused"]


async def test_a_miss_is_compared_with_the_nearest_result_that_serves_the_tenant(
    tmp_path: Path,
) -> None:
    async with team(tmp_path) as (farm, ci, ann):
        await ci.compile("-DTOKEN=of-ci", "-DX=1")
        ci.write("src/config.h", "enum { N = 3 };\n")
        await ci.compile("-DTOKEN=of-ci", "-DX=1")
        ann.write("src/config.h", "enum { N = 2 };\n")
        ann.write("src/more.h", "")
        made = await ann.compile("-DTOKEN=of-ann", "-DX=1")
        found = await ann.ask(made.action)
        assert (found.shared, found.difference) == ("", None)
        near = found.nearest
        assert near is not None
        assert (near.sharing, near.flags, near.paths) == ("fresh", ("-D",), ("src/config.h",))
        assert (near.equal, near.only_here, near.only_there) == (2, 1, 0)
        assert explain_rows(farm) == [("ann", made.action)]
        lines = explanation_lines(found, is_miss=True)
        assert "another flags -D" in lines[0]
        assert "src/config.h differs" in lines[1]
        assert "of-ci" not in repr(found)
        said = await explained(farm, made.action, tmp_path)
        assert (
            said.index("nearest") < said.index("another flags -D") < said.index("config.h differs")
        )
        # The same state as CI's first compile: that one is nearer now.
        ann.write("src/config.h", "enum { N = 1 };\n")
        (tmp_path / "ann/src/more.h").unlink()
        made = await ann.compile("-DTOKEN=of-ann", "-DX=1")
        found = await ann.ask(made.action)
        assert found.nearest is not None
        assert (found.nearest.paths, found.nearest.equal) == ((), 3)


async def test_what_is_private_to_a_colleague_is_not_compared(tmp_path: Path) -> None:
    async with team(tmp_path) as (farm, _, ann):
        await farm.warm("bob")
        bob = Checkout(farm, "bob", tmp_path / "bob")
        private = await bob.compile("-DBOB")
        made = await ann.compile()
        found = await ann.ask(made.action)
        assert (found.shared, found.difference, found.nearest) == ("", None, None)
        assert found.accepts
        assert "no other result that serves you" in explanation_lines(found, is_miss=True)[0]
        # Nor may she ask about his.
        with pytest.raises(NotFoundError):
            await ann.ask(private.action)
        with pytest.raises(NotFoundError):
            await ann.ask(str(Digest.of(b"nothing")))
        assert explain_rows(farm) == [("ann", made.action)]
        assert [(r["principal"], r["reason"]) for r in refusals(farm)] == [
            ("ann", "explain-unknown")
        ] * 2


async def test_who_accepts_nothing_is_told_so_and_learns_nothing(tmp_path: Path) -> None:
    async with team(tmp_path) as (_, ci, ann):
        await ci.compile("-DX")
        made = await ann.compile()
        found = await ann.ask(made.action, PRIVATE_ONLY)
        assert found == Explanation()
        assert "forbids it" in explanation_lines(found, is_miss=True)[0]
        found = await ann.ask(made.action, NO_FRESH)
        assert found.nearest is None


async def test_a_compile_that_serves_everybody_by_now(tmp_path: Path) -> None:
    async with team(tmp_path) as (farm, _, ann):
        await farm.warm("bob")
        bob = Checkout(farm, "bob", tmp_path / "bob")
        made = await ann.compile()
        assert not (await bob.compile()).is_cached
        found = await ann.ask(made.action)
        assert (found.shared, found.nearest) == ("agreed(2)", None)
        assert "serves everybody now (agreed(2))" in explanation_lines(found, is_miss=True)[0]


async def ask(
    farm: SharingFarm, name: str, script: str = SCRIPT, demand: SharingPolicy = ALL_SHARING
) -> Explanation:
    async with farm.person(name, demand) as client:
        return await client.explain(made_action(script)[-1].digest)


async def test_a_disagreement_is_told_to_both_sides_without_a_name(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        await farm.root("ann")
        await farm.build("ann")
        await farm.settled()
        assert (await ask(farm, "ann")).difference is None
        for name, decision in (("bob", Decision.OPEN), ("carol", Decision.REPEATED)):
            await farm.build(name, sharing=NO_FRESH)
            await farm.settled()
            hers, his = await ask(farm, "ann"), await ask(farm, name)
            assert hers.difference is not None
            assert his.difference is not None
            assert hers.difference.decision is his.difference.decision is decision
        assert (hers.difference.is_other, hers.difference.outputs) == (True, ("a.o",))
        assert (his.difference.is_other, his.difference.outputs) == (False, ())
        said = "\n".join(explanation_lines(hers, is_miss=False))
        assert "yours is another one" in said
        assert "differs from the shared one in a.o" in said
        assert "bob" not in repr(hers)
        assert "ann" not in repr(his)
        # Who accepts nothing of colleagues learns nothing of them, not even that they differ.
        assert await ask(farm, "ann", demand=PRIVATE_ONLY) == Explanation()


async def test_a_compile_that_is_not_deterministic_is_called_so(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        for name in ("bob", "carol"):
            await farm.build(name, RANDOM, sharing=NO_FRESH)
            await farm.settled()
        found = await ask(farm, "carol", RANDOM)
        assert found.difference is not None
        assert found.difference.decision is Decision.RANDOM
        assert "not deterministic" in "\n".join(explanation_lines(found, is_miss=True))


async def test_a_principal_who_asks_too_often_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        for name in ("ann", "bob"):
            await farm.build(name)

        async def flood() -> None:
            for _ in range(3 * int(BURST)):
                await ask(farm, "ann")

        with pytest.raises(BusyError) as refused:
            await flood()
        assert refused.value.reason == "explain-rate"
        assert BURST <= len(explain_rows(farm)) < 2 * BURST
        assert refusals(farm)[-1]["reason"] == "explain-rate"
        await ask(farm, "bob")


async def test_an_older_worker_is_no_failure() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = ReapiClient(
                channel, "token", ReapiClientConfig(tenant=TENANT, tool_version="test")
            )
            with pytest.raises(CallerError) as raised:
                await client.explain(Digest.of(b""))
        assert raised.value.reason == "explain-version"
    finally:
        await server.stop(0)
