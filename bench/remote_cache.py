"""A team's remote cache beside sccache: the same S3 server, the same tree, one after the other.

Builds at each latency:

- `fill`: CI builds with an empty bucket, until the last upload has ended.
- `second`: another machine, with an empty local cache, builds the same sources. hpcc asks for each
  entry here.
- `auto`: the same with hpcc's defaults, which fetch CI's build pack beside the build.
- `pull`, `pack`: hpcc's third machine pulls the pack with a command, then builds. Beside `auto` and
  `pack` are the other tools' second machines.
- `warm`: the second machine builds the tree once more, with a server that has just started.

Each is also done by the bare compiler. The tree is at the same path on both machines, because
sccache's key holds the working directory; hpcc's does not.

The bucket is SeaweedFS on this machine, behind a proxy that counts requests and bytes. Round trips
are made longer by `tc netem` in a private network namespace, on the proxy's port only, where the
kernel has netem, else by the proxy, which then does not delay the handshake of a connection. The
report says which.

CPU is that of the build's processes and of the tool's server; the store and the proxy are left out.
A figure is a ratio of medians of rounds that ran side by side; the report has both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from _counting_proxy import Traffic, counting_proxy
from _measure import BenchError, Cost, measure, rotated, run
from _tools import BARE, HPCC, OURS, Hpcc, Sccache, Tool, clean_env

from hpcc_testkit.services.s3_servers import (
    BUCKET,
    S3Server,
    seaweedfs,
    seaweedfs_missing_or_none,
)

_INSIDE: Final = "--inside-namespace"
_TENANT: Final = "acme"
SCCACHE_VERSION: Final = "0.16.0"
_UPLOAD_SECONDS: Final = 600.0
_HEADERS: Final = 40
_UNIT: Final = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{includes}
struct item{n} {{ int a[8]; char name[32]; struct item{n} *next; }};
{functions}
"""
# Every machine has the same commit.
_GIT_IDENTITY: Final = {
    f"GIT_{who}_{key}": value
    for who in ("AUTHOR", "COMMITTER")
    for key, value in (
        ("NAME", "bench"),
        ("EMAIL", "bench@example.com"),
        ("DATE", "2026-01-01T00:00:00Z"),
    )
}
_FUNCTION: Final = """\
int work{n}_{f}(struct item{n} *i, int x)
{{
    int s = x;
    for (; i; i = i->next) {{ s += i->a[x & 7] * {f}; snprintf(i->name, 32, "%d {n}", s); }}
    return s + (int)strlen("{n} {f}") + h{h}(s);
}}
"""
_MAKEFILE: Final = """\
OBJECTS := $(patsubst %.c,%.o,$(wildcard src/*.c))
all: $(OBJECTS)
%.o: %.c
\t$(CC) -O2 -g -Iinclude -MD -MF $*.d -c $< -o $@
"""


@dataclass(slots=True)
class Machine:
    """A tool on one machine: a private directory, server and cache; the bucket is shared."""

    tool: Tool
    is_writer: bool
    count: int = 0

    def finish(self) -> None:
        """Wait until all that was compiled is in the bucket."""
        if not self.is_writer or self.tool.name == BARE:
            return
        if isinstance(self.tool, Hpcc):
            run([*self.tool.prefix, "cache", "flush"], self.tool.env, Path("/"))
            return
        deadline = time.monotonic() + _UPLOAD_SECONDS
        while self._writes() < self.count:
            if time.monotonic() > deadline:
                raise BenchError("sccache's uploads do not end")
            time.sleep(0.05)

    def _writes(self) -> int:
        said = run(
            [*self.tool.prefix, "--show-stats", "--stats-format=json"], self.tool.env, Path("/")
        )
        stats = json.loads(said)["stats"]
        return int(stats["cache_writes"]) + int(stats.get("cache_write_errors", 0))


@dataclass(slots=True)
class Round:
    """What one build cost: seconds, and what went to and from the bucket."""

    wall: float
    cpu: float
    traffic: Mapping[str, int] = field(default_factory=dict)


def sccache_path() -> Path:
    """Return where `tools/bootstrap.sh sccache` puts the program. Debian's build has no S3."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", f"sccache-{SCCACHE_VERSION}", "bin", "sccache")


def write_tree(directory: Path, count: int) -> None:
    """Write a project with a marker: units of five functions, each with eight of its headers."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("src", "include"):
        (directory / name).mkdir(parents=True)
    (directory / ".hpcc").touch()
    (directory / "Makefile").write_text(_MAKEFILE)
    for h in range(_HEADERS):
        text = f"#pragma once\nstatic inline int h{h}(int x) {{ return x * {h} + 1; }}\n"
        (directory / f"include/h{h}.h").write_text(text)
    for n in range(count):
        used = [(n + k) % _HEADERS for k in range(8)]
        text = _UNIT.format(
            n=n,
            includes="\n".join(f'#include "h{h}.h"' for h in used),
            functions="".join(_FUNCTION.format(n=n, f=f, h=used[0]) for f in range(5)),
        )
        (directory / f"src/u{n}.c").write_text(text)
    old = time.time() - 3600
    for path in directory.rglob("*"):
        os.utime(path, (old, old))


class Bench:
    """Everything that one run shares."""

    def __init__(self, scratch: Path, server: S3Server, traffic: Traffic, count: int) -> None:
        self._scratch, self._server, self._traffic = scratch, server, traffic
        self._count, self._number = count, 0
        self.tree = scratch / "project"

    def machine(self, name: str, prefix: str, *, is_writer: bool, is_automatic: bool) -> Machine:
        """Return a new machine whose tool uses a prefix of the bucket."""
        self._number += 1
        home = self._scratch / f"machine{self._number}"
        home.mkdir()
        if name == BARE:
            return Machine(Tool(clean_env()), is_writer)
        key = self._server.keys[_TENANT]
        endpoint = f"http://127.0.0.1:{self._traffic.port}"
        if name == "sccache":
            tool: Tool = Sccache(clean_env(), home)
            tool.prefix = (str(sccache_path()),)
            tool.env |= {
                "SCCACHE_BUCKET": BUCKET,
                "SCCACHE_ENDPOINT": endpoint,
                "SCCACHE_REGION": "us-east-1",
                "SCCACHE_S3_USE_SSL": "false",
                "SCCACHE_S3_KEY_PREFIX": f"{_TENANT}/{prefix}",
                "SCCACHE_S3_RW_MODE": "READ_WRITE" if is_writer else "READ_ONLY",
                "AWS_ACCESS_KEY_ID": key.access_key_id,
                "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            }
        else:
            tool = Hpcc(clean_env(), home)
            secret = home / "s3.json"
            secret.write_text(
                json.dumps(
                    {
                        "access_key_id": key.access_key_id,
                        "secret_access_key": key.secret_access_key,
                    }
                )
            )
            secret.chmod(0o600)
            own: dict[str, Any] = {"pull_packs": is_automatic}
            if is_writer:
                own |= {"mode": "write", "signing_key_file": str(self._scratch / "ci.key")}
            self._configure(home, prefix, endpoint, secret, own)
        tool.start()
        return Machine(tool, is_writer)

    def _configure(
        self, home: Path, prefix: str, endpoint: str, secret: Path, own: Mapping[str, Any]
    ) -> None:
        key_file = self._scratch / "ci.key"
        if not key_file.exists():
            said = run([str(HPCC), "cache", "keygen", str(key_file)], clean_env(), home)
            (self._scratch / "ci.line").write_text(said.splitlines()[0])
        line = (self._scratch / "ci.line").read_text()
        fields: dict[str, Any] = {
            "url": f"s3://{BUCKET}/{_TENANT}/{prefix}",
            "endpoint": endpoint,
            "credentials_file": str(secret),
            "trusted_keys": [line],
            # A machine that does other work beside must not look like a store that is away.
            "timeout_seconds": 60.0,
            **own,
        }
        directory = home / "hpcc/config"
        directory.mkdir(parents=True)
        rows = "".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items())
        (directory / "hpcc.toml").write_text("[cache.remote]\n" + rows)

    def build(self, machine: Machine) -> Round:
        """Build the tree with a machine's tool, until nothing waits to be uploaded."""
        self._write()
        tool = machine.tool
        if isinstance(tool, Sccache):
            machine.count = machine._writes() + self._count  # noqa: SLF001 - of this module
        before = self._traffic.counts()
        compiler = " ".join([*tool.prefix, "gcc"])

        def work() -> None:
            run(["make", "-s", "-j2", f"CC={compiler}"], tool.env, self.tree)
            machine.finish()

        cost = measure(work, tool.server_seconds)
        return self._round(cost, before)

    def _round(self, cost: Cost, before: Mapping[str, int]) -> Round:
        after = self._traffic.counts()
        return Round(cost.wall, cost.cpu, {k: after[k] - before[k] for k in after})

    def _write(self) -> None:
        """Write the tree, as a clone of the one commit that a pack is named after."""
        write_tree(self.tree, self._count)
        (self.tree / ".gitignore").write_text("*.o\n*.d\n")
        env = {**os.environ, **_GIT_IDENTITY}
        for command in ("init -q -b main", "add .", "commit -q -m one"):
            run(["git", *command.split()], env, self.tree)

    def story(self, name: str, prefix: str) -> dict[str, Round]:
        """Fill the bucket with one machine, then build with others."""
        rounds = {}
        with self._running(name, prefix, is_writer=True) as ci:
            rounds["fill"] = self.build(ci)
            if isinstance(ci.tool, Hpcc):
                run([*ci.tool.prefix, "pack", "push"], ci.tool.env, self.tree)
        with self._running(name, prefix) as second:
            rounds["second"] = self.build(second)
            self._check(name, second, self._count)
            second.tool.stop()
            second.tool.start()
            rounds["warm"] = self.build(second)
        rounds["auto"] = rounds["pack"] = rounds["second"]
        if name == OURS:
            with self._running(name, prefix, is_automatic=True) as default:
                rounds["auto"] = self.build(default)
                self._check(name, default, self._count)
            with self._running(name, prefix) as third:
                rounds["pull"] = self._pull(third)
                rounds["pack"] = self.build(third)
                self._check(name, third, self._count)
                if rounds["pack"].traffic["requests"]:
                    raise BenchError("a build with the pack asked the bucket")
        return rounds

    @contextmanager
    def _running(
        self, name: str, prefix: str, *, is_writer: bool = False, is_automatic: bool = False
    ) -> Iterator[Machine]:
        machine = self.machine(name, prefix, is_writer=is_writer, is_automatic=is_automatic)
        try:
            yield machine
        finally:
            machine.tool.stop()

    def _pull(self, machine: Machine) -> Round:
        self._write()
        before = self._traffic.counts()
        command = [*machine.tool.prefix, "pack", "pull"]
        cost = measure(
            lambda: run(command, machine.tool.env, self.tree), machine.tool.server_seconds
        )
        return self._round(cost, before)

    def _check(self, name: str, machine: Machine, count: int) -> None:
        """Refuse a figure of a second machine that compiled."""
        if name == BARE:
            return
        if isinstance(machine.tool, Hpcc):
            stats = json.loads(
                run([*machine.tool.prefix, "stats", "--json"], machine.tool.env, Path("/"))
            )
            hits = int(stats.get("hit.signed", 0))
        else:
            hits = machine.tool.counts().hits
        if hits < count:
            raise BenchError(f"{name} had {hits} hits of {count} on the second machine")


def add_latency(port: int, round_trip_ms: float) -> bool:
    """Delay a port of this namespace's loopback device; return False where the kernel cannot."""
    with suppress(BenchError):
        run(["tc", "qdisc", "del", "dev", "lo", "root"], os.environ, Path("/"))
    delay = f"{round_trip_ms / 2}ms"
    commands = [
        "qdisc add dev lo root handle 1: prio bands 4",
        f"qdisc add dev lo parent 1:4 handle 40: netem delay {delay} limit 100000",
        *(
            "filter add dev lo protocol ip parent 1: prio 1 u32"
            f" match ip {side} {port} 0xffff flowid 1:4"
            for side in ("dport", "sport")
        ),
    ]
    try:
        for command in commands:
            run(["tc", *command.split()], os.environ, Path("/"))
    except BenchError:
        return False
    return True


def median_row(rounds: Sequence[Round]) -> dict[str, float]:
    """Return the medians of some rounds."""
    row = {
        "wall": statistics.median(r.wall for r in rounds),
        "cpu": statistics.median(r.cpu for r in rounds),
    }
    for key in rounds[0].traffic:
        row[key] = statistics.median(r.traffic[key] for r in rounds)
    return row


def compare(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return the report."""
    names = [BARE, OURS, *(["sccache"] if sccache_path().is_file() else [])]
    report: dict[str, Any] = {
        "format": 1, "files": asked.files, "rounds": asked.rounds, "load": os.getloadavg()[0],
        "tools": names, "delay": {}, "rows": [],
    }  # fmt: skip
    with seaweedfs(scratch / "s3") as server:
        port = int(server.endpoint.rpartition(":")[2])
        with counting_proxy(port) as traffic:
            bench = Bench(scratch, server, traffic, asked.files)
            for latency in asked.latency:
                is_netem = latency > 0 and add_latency(traffic.port, latency)
                traffic.delay_seconds = 0.0 if is_netem else latency / 2000
                report["delay"][str(latency)] = "netem" if is_netem else "proxy"
                rounds: dict[str, dict[str, list[Round]]] = {}
                for number in range(asked.rounds):
                    for name in rotated(names, number):
                        found = bench.story(name, f"l{latency}-r{number}-{name}")
                        for kind, one in found.items():
                            rounds.setdefault(kind, {}).setdefault(name, []).append(one)
                for kind, tools in rounds.items():
                    medians = {name: median_row(found) for name, found in tools.items()}
                    report["rows"].append({"latency_ms": latency, "build": kind, "tools": medians})
    report["load_after"] = os.getloadavg()[0]
    return report


def text(report: Mapping[str, Any]) -> str:
    """Return the report as a table; a ratio below 1 is in hpcc's favour."""
    lines = [
        f"{report['files']} files, {report['rounds']} rounds,"
        f" load {report['load']:.1f} to {report['load_after']:.1f}, delay by {report['delay']}",
        "| latency | build | | hpcc | sccache | bare | hpcc : sccache |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        tools = row["tools"]
        for key in ("wall", "cpu", "requests", "connections", "up_bytes", "down_bytes"):
            ours, theirs = tools[OURS][key], tools.get("sccache", {}).get(key)
            ratio = f"{ours / theirs:.2f}" if theirs else "-"
            shown = [f"{tools[n][key]:.2f}" if n in tools else "-" for n in (OURS, "sccache", BARE)]
            cells = [f"{row['latency_ms']} ms", row["build"], key, *shown, ratio]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_goals(report["rows"])])


def _goals(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say how the first build after a pull compares with a warm cache, and with sccache."""
    walls = {(row["latency_ms"], row["build"]): row["tools"] for row in rows}
    for latency in dict.fromkeys(latency for latency, _ in walls):
        pack, warm = (walls[latency, build] for build in ("pack", "warm"))
        text = f"{latency} ms: with the pack {pack[OURS]['wall'] / warm[OURS]['wall']:.2f} of warm"
        if "sccache" in pack:
            text += f", {pack['sccache']['wall'] / pack[OURS]['wall']:.1f} times as fast as sccache"
        yield text


def main(argv: Sequence[str]) -> int:
    """Run the bench; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--latency", type=float, nargs="+", default=[0, 20, 100], help="round trips in ms"
    )
    parser.add_argument("--quick", action="store_true", help="30 files, one round")
    parser.add_argument("--json", type=Path, help="also write the report here")
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.quick:
        asked.files, asked.rounds = 30, 1
    if missing := seaweedfs_missing_or_none():
        print(missing, file=sys.stderr)
        return 2
    if not sccache_path().is_file():
        print("no sccache with S3 to compare with: tools/bootstrap.sh sccache", file=sys.stderr)
    if not asked.inside_namespace:
        inner = [sys.executable, __file__, *argv, _INSIDE]
        shell = 'ip link set lo up && exec "$@"'
        return subprocess.call(["unshare", "--net", "sh", "-c", shell, "sh", *inner])
    with tempfile.TemporaryDirectory(prefix="hpcc-remote-cache-") as name:
        report = compare(asked, Path(name))
    print(text(report))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
