"""`hpcc audit reproduce --build`: the rows of a build again, and a statement that openssl checks.

Guests are fake here, their commands are real.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.audit.base.trail import Retired, walk
from hpcc.cli.audit import reproduce_build
from hpcc.cli.main import main
from hpcc.core import Blob, ImageDigest, Isolation, NotFoundError
from hpcc.evidence.reproduction import TEST_RESULT, candidates_of, sample_of
from hpcc.ports import AuditRow, Runtime
from hpcc.worker.execute.reproduce import Reproduction, reproduce_row
from hpcc_testkit.evidence.tools import openssl_accepts
from hpcc_testkit.farm.audit_rows import made, opened, row
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test

SAME = "cat dir/a.c > a.o; cat b.h >> a.o"
RANDOM = "od -An -N8 -tx1 /dev/urandom > a.o"
LOST = "cat b.h > a.o"


@dataclass
class Build:
    """A trail with rows of a build, and what runs them again."""

    farm: FarmUnderTest
    trail: Path
    rows: list[AuditRow] = field(default_factory=list)
    blobs: list[list[Blob]] = field(default_factory=list)
    ran: int = 0

    async def image(self, digest: ImageDigest) -> Path:
        return self.farm.directory / "image"

    async def again(self, row: AuditRow) -> Reproduction:
        async def choose(isolation: Isolation, state: Path) -> Runtime:
            return self.farm.runtime

        self.ran += 1
        return await reproduce_row(
            self.farm.worker_config(), row, choose_runtime=choose, images=self,
            progress=lambda _: None,
        )  # fmt: skip

    async def write(self) -> None:
        async with opened(self.trail) as log:
            for one in self.rows:
                await log.append(one)

    def lose(self, blob: Blob) -> None:
        for file in (self.farm.directory / "worker/store" / TENANT.value).glob(
            f"*/??/{blob.digest.hash}"
        ):
            file.unlink()

    def run(self, *words: str) -> tuple[int, Any]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--build")
        reproduce_build.register(parser)
        output, key = self.trail.parent / "result.json", self.trail.parent / "maker.key"
        args = parser.parse_args(
            ["--build", "ci/4711", "--output", str(output), "--key", str(key), *words]
        )
        status = reproduce_build.run_build(args, self.trail, self.again)
        table = json.loads(output.read_bytes())
        payload = base64.b64decode(table["payload"])
        kind = table["payloadType"].encode()
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = base64.b64decode(table["signatures"][0]["sig"])
        public, base = key.with_name("maker.key.pub"), self.trail.parent
        assert openssl_accepts(message, signature, public, base)
        assert not openssl_accepts(message + b" ", signature, public, base)
        statement = json.loads(payload)
        assert statement["predicateType"] == TEST_RESULT
        return status, statement


@pytest.fixture
async def build(tmp_path: Path) -> AsyncGenerator[Build]:
    async with farm_under_test(tmp_path) as farm:
        found = Build(farm, tmp_path / "trail")
        async with farm.serving(), farm.client() as client:
            for script in (SAME, RANDOM, LOST):
                blobs = made(script)
                await client.upload(blobs)
                await client.execute(blobs[-1].digest, ["a.o"])
                found.blobs.append(blobs)
        found.rows = [replace(r, build_id="ci/4711") for r in farm.audit.rows]
        yield found


async def _in_thread(build: Build, *words: str) -> tuple[int, Any]:
    return await asyncio.to_thread(build.run, *words)


async def test_each_row_has_its_verdict_and_the_worst_one_is_the_result(build: Build) -> None:
    build.lose(build.blobs[2][-1])  # its action
    await build.write()
    status, statement = await _in_thread(build)
    predicate = statement["predicate"]
    same, random, lost = (r.row_id for r in build.rows)
    assert (status, predicate["result"]) == (3, "FAILED")
    assert predicate["passedTests"] == [same]
    assert predicate["failedTests"] == [random]
    assert predicate["warnedTests"] == [lost]
    rows = {r["row"]: r for r in predicate["https://hpcc.example/reproduction/v1"]["rows"]}
    assert rows[same]["objects"] == [
        {"name": "a.o", "then": str(build.rows[0].outputs[0][1]), "same": True,
         "now": str(build.rows[0].outputs[0][1])}
    ]  # fmt: skip
    assert rows[same]["now"]["isolation"] == "local/none"
    (different,) = rows[random]["objects"]
    assert not different["same"]
    assert different["now"] != different["then"]
    assert rows[lost]["verdict"] == "expired"
    assert rows[lost]["now"] is None
    assert [f["name"] for f in rows[lost]["findings"]] == ["action", "input tree"]
    names = {next(iter(s["digest"].values())) for s in statement["subject"]}
    assert names == {r.outputs[0][1].partition("/")[0] for r in build.rows}


async def test_all_the_same_is_passed_and_what_is_gone_is_a_warning(build: Build) -> None:
    build.rows = [build.rows[0], build.rows[2]]
    await build.write()
    status, statement = await _in_thread(build)
    assert (status, statement["predicate"]["result"]) == (0, "PASSED")
    build.lose(build.blobs[2][-1])
    status, statement = await _in_thread(build)
    assert (status, statement["predicate"]["result"]) == (4, "WARNED")


async def test_a_row_that_was_not_signed_or_is_anothers_action_does_not_count(
    build: Build,
) -> None:
    first = build.rows[0]
    other = replace(first, row_id="f" * 32, input_root_digest=f"{'0' * 64}/5")
    build.rows = [first, other]
    await build.write()
    status, statement = await _in_thread(build)
    predicate = statement["predicate"]
    assert (status, predicate["failedTests"]) == (3, ["f" * 32])
    (damaged,) = (
        r for r in predicate["https://hpcc.example/reproduction/v1"]["rows"] if r["row"] == "f" * 32
    )
    assert (damaged["verdict"], damaged["now"]) == ("damaged", None)


async def test_a_sample_is_chosen_by_the_rows_and_says_how_many_there_were(
    tmp_path: Path,
) -> None:
    trail = tmp_path / "trail"
    async with opened(trail) as log:
        for number in range(20):
            await log.append(
                row(number, outputs=(("a.o", f"{number:064x}/1"),), reason="", cache_status="hit")
            )
        again = row(3, outputs=(("a.o", f"{3:064x}/1"),), reason="", cache_status="hit")
        await log.append(again)
        await log.append(row(30, outputs=(), reason="", cache_status="executed"))
        await log.append(row(31, cache_status="abandoned"))
    records = [item.record for item in walk(trail) if not isinstance(item, Retired)]
    rows = [record for record in records if record.kind == "row"]
    candidates, others = candidates_of(rows)
    assert (len(candidates), others) == (20, 3)
    chosen = sample_of(candidates, 25)
    assert len(chosen) == 5
    assert chosen == sample_of(candidates, 25)
    assert [c.sequence for c in chosen] == sorted(c.sequence for c in chosen)
    assert sample_of(candidates[:-1], 25) != chosen[:4], "one row more chooses anew"
    assert len(sample_of(candidates, 0.1)) == 1
    assert sample_of([], 50) == []


async def test_without_rows_nothing_is_signed(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    build.rows = [replace(build.rows[0], build_id="ci/1")]
    await build.write()
    with pytest.raises(NotFoundError, match="no row of build 'ci/4711'"):
        await _in_thread(build)
    assert not (build.trail.parent / "result.json").exists()


def test_row_and_build_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "reproduce", "abc", "--build", "ci/4711"])
    with pytest.raises(SystemExit):
        main(["audit", "reproduce"])
    with pytest.raises(SystemExit):
        main(["audit", "reproduce", "--build", "x", "--sample", "0"])
    assert "must be above 0" in capsys.readouterr().err
