"""A farm on this machine for `run.py --farm`: real client, scheduler and worker, simple guests.

A guest is a mount namespace with the machine's compilers and nothing of its projects: `/src` holds
the inputs that were sent. So a compile that lacks an input fails, and an object that names `/src`
differs from the one of a compile here.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corpus.recording import Command
from corpus.tools import Hpcc
from hpcc.cache.results.records_read import CompileRecord, read_records
from hpcc.config.paths import Paths
from hpcc.core import ExecRequest, ImageDigest, Toolchain
from hpcc.images.survey import Survey
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.guests.fake_runtime import FakeGuest
from hpcc_testkit.guests.placed import placed_command

FARM: Final = "farm"
_END_SECONDS: Final = 30


class SourceGuest(FakeGuest):
    """A guest with a real `/src`."""

    def _command(self, root: Path, request: ExecRequest) -> tuple[list[str], dict[str, str]]:
        place = root.parent / f"{root.name}.root"
        place.mkdir()
        command = placed_command(request.argv, root, place, request.cwd, dict(request.env))
        return command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass
class _Book:
    """`ToolchainBook` in memory."""

    found: dict[ImageDigest, tuple[Toolchain, ...]] = field(default_factory=dict)

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        return self.found.get(image)

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        if survey.is_understood:
            self.found[image] = survey.compilers


async def _serve(directory: Path) -> None:
    """Run the farm until stdin ends; print the farm.json of a client."""
    async with farm_under_test(directory) as farm:
        farm.runtime.guest_class = SourceGuest
        farm.book = _Book()
        async with farm.serving():
            print(farm.farm().to_json().replace("\n", " "), flush=True)
            await asyncio.to_thread(sys.stdin.readline)


class FarmError(Exception):
    """The farm did not come up."""


class FarmProcess:
    """The farm in a separate process; `client` is the farm.json for its clients."""

    def __init__(self, directory: Path) -> None:
        self._log = (directory.parent / f"{directory.name}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "corpus.farming", str(directory)], text=True,
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.client = self._process.stdout.readline()
        if not self.client:
            self.close()
            raise FarmError(f"the farm did not come up: {self._log.name}")

    def close(self) -> None:
        """End the farm: it ends at the end of its input."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


class FarmHpcc(Hpcc):
    """hpcc with a farm. It compiles here only what cannot travel."""

    def __init__(self, launcher: Path, directory: Path, client: str) -> None:
        super().__init__(launcher, directory)
        self.name, self._client = FARM, client
        self._paths = Paths.from_env(self.env)

    def start(self) -> None:
        for path in (self._paths.farm_file, self._paths.config / "hpcc.toml"):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._paths.farm_file.write_text(self._client)
        # A local slot would compile here what can travel.
        (self._paths.config / "hpcc.toml").write_text('[remote]\nlocal_slots = "off"\n')
        super().start()

    def warm_up(self, directory: Path) -> None:
        """Compile once, so that the client knows the image's compilers."""
        (directory / "warm.c").write_text("int warm;\n")
        command = [*self.prefix, "cc", "-c", "warm.c", "-o", "warm.o"]
        subprocess.run(command, cwd=directory, env={**_ENV, **self.env}, check=True)

    def ends(self, commands: Sequence[Command]) -> list[CompileRecord | None]:
        """Return the last record of each of these compiles."""
        json.loads(self._ask("stats", "--json"))  # the daemon writes what it has in memory
        latest = {record.output: record for record in read_records(str(self._paths.cache))}
        return [latest.get(command.object) for command in commands]


_ENV: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def travelled(record: CompileRecord | None) -> bool:
    """Tell whether a farm made the result of a compile."""
    return record is not None and record.outcome.startswith(("miss.remote.", "hit.remote"))


def why_not(record: CompileRecord | None) -> str:
    """Return why a compile stayed here; "" if it did not."""
    if travelled(record):
        return ""
    if record is None:
        return "no record"
    return record.fallback or f"{record.outcome} {record.reason} {record.culprit}".strip()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
