"""Measures what a compile on a farm costs the client's machine: CPU, and bytes sent.

The farm has a real scheduler, worker, TLS and tokens; only its guests are local processes. No
figure contains the farm's CPU. The client is the installed launcher with its daemon and dispatcher.
All figures of one row alternate with `gcc -M` and `gcc -E`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from _farm_rows import Figure
from _measure import BenchError, children_seconds, settle, tree_seconds
from _measure import run as run_tool
from _tools import HPCC
from _trees import header_tree, write_source
from google.protobuf.message import Message

from hpcc.config.paths import Paths
from hpcc.rpc.base import method
from hpcc.rpc.reapi import server
from hpcc.store.private import STORE_NAME
from hpcc_testkit.farm.in_process import farm_under_test

HEADERS: Final = 300
GOAL_MS: Final = 3.0
GOAL_BYTES: Final = 3.0
_FUNCTIONS: Final = 150


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one kind of compile: CPU in milliseconds, bytes sent by bytes of the file."""

    name: str
    ours_ms: float
    parts_ms: tuple[float, float, float]
    preprocess_ms: float
    dependencies_ms: float
    sent_bytes: float
    file_bytes: int
    counted: str

    def text(self) -> str:
        """Return the row of the table in docs/performance.md."""
        launcher, daemon, dispatcher = self.parts_ms
        holds = "holds" if self.ours_ms <= GOAL_MS else "**misses**"
        return (
            f"| {self.name} | {self.ours_ms:.2f} ms "
            f"| {launcher:.2f} + {daemon:.2f} + {dispatcher:.2f} "
            f"| {self.preprocess_ms:.1f} ms | {self.dependencies_ms:.1f} ms "
            f"| {self.ours_ms / self.dependencies_ms:.2f} | {holds} "
            f"| {self.sent_bytes / 1000:.1f} kB | {self.sent_bytes / self.file_bytes:.1f} |"
        )


class Client:
    """One developer's machine: a project, a private daemon, and what it has spent so far."""

    def __init__(self, directory: Path, farm_json: str, *, is_flat: bool) -> None:
        self.project, self.home = directory / "project", directory / "home"
        self.home.mkdir(parents=True)
        self.flags = header_tree(self.project, HEADERS, include_dirs=0 if is_flat else 3)
        (self.project / ".hpcc").touch()
        self.env = {"PATH": "/usr/bin:/bin", "HPCC_DIR": str(self.home), "HOME": str(directory)}
        paths = Paths.from_env(self.env)
        paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
        paths.farm_file.write_text(farm_json)
        for number in range(256):
            # Any store has these after some hundred results, and making one costs 0.3 ms.
            (paths.cache / STORE_NAME / f"{number:02x}").mkdir(parents=True)
        run_tool([str(HPCC), "start"], self.env, self.project)
        self.daemon = int(json.loads(self.tell("status", "--json"))["pid"])
        self._number = 0

    def tell(self, *args: str) -> str:
        return run_tool([str(HPCC), *args], self.env, self.project)

    def counts(self) -> dict[str, int]:
        return dict(json.loads(self.tell("stats", "--json")))

    def dispatcher(self) -> int:
        children = Path(f"/proc/{self.daemon}/task/{self.daemon}/children").read_text().split()
        every = {
            pid
            for task in Path(f"/proc/{self.daemon}/task").iterdir()
            for pid in (task / "children").read_text().split()
        } | set(children)
        for pid in every:
            if b"hpcc.dispatch" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        raise BenchError("the daemon has no dispatcher")

    def write(self, name: str) -> Path:
        """Write a unit of about 10 kB that differs from all earlier ones."""
        self._number += 1
        body = "\n".join(
            f"int work_{i}(int n) {{ return n * {i} + {self._number if not i else 0}; }}"
            for i in range(_FUNCTIONS)
        )
        path = self.project / name
        write_source(path, HEADERS, body)
        return path

    def compile(self, name: str) -> None:
        argv = [str(HPCC), "gcc", *self.flags, "-I.", "-w", "-MD", "-c", name, "-o", "out.o"]
        run_tool(argv, self.env, self.project)

    def close(self) -> None:
        self.tell("stop")


class FarmProcess:
    """The farm, in a separate process so that no figure contains its CPU or its compilers' CPU."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.farm_json = self._line()

    def uploaded(self) -> int:
        """Return the bytes that clients sent to the worker since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the farm did not come up, or ended")
        return line.strip()


class _Counted:
    """A request's type that counts the bytes of its messages, without TLS and HTTP/2."""

    def __init__(self, kind: type[Message], sizes: list[int]) -> None:
        self._kind, self._sizes = kind, sizes
        self.DESCRIPTOR = kind.DESCRIPTOR

    def __call__(self) -> Message:
        return self._kind()

    def FromString(self, data: bytes) -> Message:  # noqa: N802 - protobuf's name
        self._sizes.append(len(data))
        return self._kind.FromString(data)


async def serve(directory: Path) -> None:
    """Run the farm: print farm.json, then per input line the request bytes since the last one."""
    sizes: list[int] = []

    def counted(name: str, request: type[Message], *rest: Any, **more: Any) -> method.Method:  # noqa: ANN401 - as Method takes them
        return method.Method(name, _Counted(request, sizes), *rest, **more)  # type: ignore[arg-type]  # it has what is used of a type

    server.Method = counted  # type: ignore[misc,assignment]  # counts the bytes of every request
    async with farm_under_test(directory) as farm, farm.serving():
        print(farm.farm().to_json().replace("\n", " "), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(sum(sizes), flush=True)
            sizes.clear()


def _spent(work: Callable[[], None], client: Client, dispatcher: int) -> tuple[float, float, float]:
    """Return the CPU in milliseconds of launcher, daemon and dispatcher."""
    children, whole, half = (
        children_seconds(),
        tree_seconds(client.daemon),
        tree_seconds(dispatcher),
    )
    work()
    launcher = children_seconds() - children
    other = tree_seconds(dispatcher) - half
    return (
        1000 * launcher,
        1000 * (tree_seconds(client.daemon) - whole - other),
        1000 * other,
    )


def _bare(argv: list[str], client: Client) -> float:
    before = children_seconds()
    subprocess.run(argv, cwd=client.project, check=True, stdout=subprocess.DEVNULL, timeout=60)
    return 1000 * (children_seconds() - before)


def measure_row(
    name: str, client: Client, farm: FarmProcess, unit: Callable[[int], str], rounds: int
) -> Row:
    """Compile one unit per round; the first rounds are a warm-up."""
    for i in range(3):
        source = unit(-1 - i)
        client.write(source)
        client.compile(source)
    settle()
    client.write(source)
    client.compile(source)  # by now the daemon trusts the headers' stats
    dispatcher, before = client.dispatcher(), client.counts()
    ours: list[tuple[float, float, float]] = []
    preprocess, dependencies, sent = [], [], []
    for i in range(rounds):
        source = unit(i)
        size = client.write(source).stat().st_size
        farm.uploaded()
        ours.append(_spent(lambda source=source: client.compile(source), client, dispatcher))
        sent.append(farm.uploaded())
        plain = ["gcc", *client.flags, "-I.", "-w", source]
        preprocess.append(_bare([*plain, "-E", "-o", "/dev/null"], client))
        dependencies.append(_bare([*plain, "-M"], client))
    after = client.counts()
    executed = after.get("miss.remote.executed", 0) - before.get("miss.remote.executed", 0)
    if executed != rounds:
        raise BenchError(f"{name}: {executed} of {rounds} compiles ran on the farm: {after}")
    launcher, daemon, rest = (statistics.median(column) for column in zip(*ours, strict=True))
    scanned = after.get("closure.scanned", 0) - before.get("closure.scanned", 0)
    return Row(
        name,
        statistics.median(map(sum, ours)),
        (launcher, daemon, rest),
        statistics.median(preprocess),
        statistics.median(dependencies),
        statistics.median(sent),
        size,
        f"{scanned} of {rounds} closures scanned",
    )


def rows(directory: Path, rounds: int) -> Iterator[Row]:
    """Measure all rows, with one client for each shape of a project."""
    farm = FarmProcess(directory / "farm")
    try:
        for shape, is_flat in (("in 3 -I directories", False), ("beside the unit", True)):
            client = Client(directory / shape.replace(" ", "-"), farm.farm_json, is_flat=is_flat)
            try:
                name = f"{HEADERS} headers {shape}"
                yield measure_row(
                    f"{name}, a changed line", client, farm, lambda _i: "unit.c", rounds
                )
                yield measure_row(f"{name}, a new unit", client, farm, "new{}.c".format, rounds)
            finally:
                client.close()
    finally:
        farm.close()


def run(directory: Path, is_quick: bool, show: Callable[[Figure], None]) -> None:  # noqa: FBT001 - as bench/farm.py calls it
    """Call `show` with each figure of the rows."""
    for row in rows(directory, 5 if is_quick else 40):
        show(Figure(f"{row.name}: client CPU", row.ours_ms, "ms", GOAL_MS))
        show(Figure(f"{row.name}: the same by `gcc -M`", row.ours_ms / row.dependencies_ms, ""))
        sent = row.sent_bytes / row.file_bytes
        show(Figure(f"{row.name}: bytes sent by the file", sent, "", GOAL_BYTES))


def main(argv: list[str] | None = None) -> int:
    """Print the table; a missed goal does not stop the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return 0
    print(
        "| compile on a farm | client CPU | launcher + daemon + dispatcher | `-E` | `-M` | by `-M` "
        "| ≤ 3 ms | sent | by the file |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        for row in rows(Path(name), options.rounds):
            print(row.text(), flush=True)
            print(f"  {row.counted}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
