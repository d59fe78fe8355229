"""Measures a daemon's hits per second, without the cost of starting processes.

N client processes speak the launcher's protocol directly over the daemon's socket, with one
connection for each hit as the launcher does, and time each answer. The result shows what the daemon
can do and how that grows with its processes. `run.py` shows what a user gets, with a process for
each compile. The clients are Python and need CPU time too, which is printed. On a machine without
spare cores they take it from the daemon.

  load.py [--clients N] [--seconds S] [--headers H] [--processes 1,2,4] [--json]

The script starts a daemon for each number of processes, one after the other, or uses the daemon of
`--hpcc-dir`. Every client compiles a different source, so that no two write the same object. An
answer other than a hit is an error and ends the script with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import BenchError, run, settle, tree_seconds
from _places import default_parent, file_system
from _rows import Json
from _tools import HPCC, clean_env
from _trees import age, header_tree

from hpcc.config.paths import Paths
from hpcc.wire import launcher as wire

_ANSWER_SECONDS: Final = 60.0
_WARM_UP_SECONDS: Final = 0.2
_QUANTILES: Final = (50.0, 90.0, 99.0, 99.9)
_RESULT: Final = struct.Struct("<2d")


@dataclass(frozen=True, slots=True)
class Client:
    """One compile in a private directory, and the frame that requests it."""

    directory: Path
    argv: tuple[str, ...]
    frame: bytes

    @staticmethod
    def make(directory: Path, headers: int) -> Client:
        header_tree(directory, headers)
        age(directory)
        argv = ("gcc", "-c", "-O1", "-MD", "-MF", "main.d", "main.c", "-o", "main.o")
        compiler = shutil.which("gcc")
        if compiler is None:
            raise BenchError("no gcc")
        request = wire.LauncherRequest(
            build_id=wire.BUILD_ID.encode(), compiler=compiler.encode(),
            cwd=os.fsencode(directory), argv=tuple(os.fsencode(word) for word in argv),
            env=((b"LC_ALL", b"C"), (b"PATH", os.environ["PATH"].encode())),
            umask=_umask(), gid=os.getegid(), stderr_is_tty=False,
            cwd_id=_place(directory), root_id=_place("/"), mount_id=_place("/proc/self/ns/mnt"),
        )  # fmt: skip
        return Client(directory, argv, wire.encode_request(request))


def _place(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def ask(path: str, frame: bytes) -> tuple[socket.socket, int, bytes]:
    """Send a request; return the connection and the first answer other than a keepalive."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(path)
        connection.sendall(frame)
        return connection, *receive(connection)
    except BaseException:
        connection.close()
        raise


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Read one frame."""
    buffer = b""
    while True:
        data = connection.recv(1 << 16)
        if not data:
            raise BenchError("the daemon closed the connection")
        buffer += data
        while len(buffer) >= wire.HEADER_BYTES:
            kind, length = wire.parse_header(buffer)
            end = wire.HEADER_BYTES + length
            if len(buffer) < end:
                break
            if kind != wire.WAIT:
                return kind, buffer[wire.HEADER_BYTES : end]
            buffer = buffer[end:]


def prime(path: str, client: Client) -> None:
    """Act as the launcher until the compile is a hit: run the command it gets, and report."""
    connection, kind, body = ask(path, client.frame)
    with connection:
        if kind == wire.DONE:
            return
        if kind != wire.RUN:
            raise BenchError(f"the daemon answers with frame {kind}: {body[:200]!r}")
        argv = wire.decode_run(body).argv
        done = subprocess.run(argv, cwd=client.directory, capture_output=True, check=False)
        report = wire.LauncherReport(
            exit_code=done.returncode, signal=0, stdout=done.stdout, stderr=done.stderr,
            is_truncated=False,
        )  # fmt: skip
        connection.sendall(wire.encode_report(report))
        receive(connection)


def hammer(path: str, frame: bytes, seconds: float) -> array[float]:
    """Send requests for `seconds`; return the seconds that each hit took."""
    taken = array("d")
    now = time.perf_counter
    end = now() + seconds
    while (started := now()) < end:
        connection, kind, _ = ask(path, frame)
        connection.close()
        taken.append(now() - started)
        if kind != wire.DONE:
            raise BenchError(f"not a hit: frame {kind}")
    return taken


def _in_child(path: str, client: Client, seconds: float, result: Path, gate: int) -> None:
    """Run one client process to its end; never returns."""
    code = 1
    try:
        os.read(gate, 1)  # closed when all clients have started
        cpu = time.process_time()
        taken = hammer(path, client.frame, seconds)
        result.write_bytes(_RESULT.pack(time.process_time() - cpu, len(taken)) + taken.tobytes())
        code = 0
    except (BenchError, OSError) as error:
        print(f"load: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def load(
    path: str, clients: Sequence[Client], seconds: float, daemon_pid: int, results: Path
) -> Json:
    """Run all clients at once and return the summary."""
    gate, opener = os.pipe()
    pids = []
    for number, client in enumerate(clients):
        pid = os.fork()
        if not pid:
            os.close(opener)
            _in_child(path, client, seconds, results / str(number), gate)
        pids.append(pid)
    os.close(gate)
    daemon_before, started = tree_seconds(daemon_pid), time.perf_counter()
    os.close(opener)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    wall, daemon = time.perf_counter() - started, tree_seconds(daemon_pid) - daemon_before
    if failed:
        raise BenchError(f"{len(failed)} of {len(clients)} clients failed")
    taken, client_cpu = array("d"), 0.0
    for number in range(len(clients)):
        data = (results / str(number)).read_bytes()
        client_cpu += _RESULT.unpack_from(data)[0]
        taken.frombytes(data[_RESULT.size :])
    return summary(taken, wall=wall, daemon_cpu=daemon, client_cpu=client_cpu)


def summary(taken: Sequence[float], *, wall: float, daemon_cpu: float, client_cpu: float) -> Json:
    """Return the rate, quantiles of the latency, and the CPU of each side. No I/O."""
    ordered, hits = sorted(taken), len(taken)
    if not hits:
        raise BenchError("not one hit")
    micros = {
        f"p{q:g}": round(ordered[min(hits - 1, int(hits * q / 100))] * 1e6, 1) for q in _QUANTILES
    }
    return {
        "hits": hits, "wall_seconds": round(wall, 3), "hits_per_second": round(hits / wall, 1),
        "latency_us": {**micros, "mean": round(statistics.fmean(taken) * 1e6, 1),
                       "max": round(ordered[-1] * 1e6, 1)},
        "daemon_cpu_us_per_hit": round(daemon_cpu / hits * 1e6, 1),
        "client_cpu_us_per_hit": round(client_cpu / hits * 1e6, 1),
        "daemon_cores": round(daemon_cpu / wall, 2), "client_cores": round(client_cpu / wall, 2),
    }  # fmt: skip


@contextmanager
def some_daemon(args: argparse.Namespace, processes: int, scratch: Path) -> Iterator[Json]:
    """Yield the status of `--hpcc-dir`'s daemon, or of a new one that ends with the block."""
    env = {**clean_env(), "HPCC_DIR": str(args.hpcc_dir or scratch / "hpcc")}
    launcher = str(args.hpcc.absolute())
    if processes:
        settings = Paths.from_env(env).config_file
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f"[daemon]\nprocesses = {processes}\n")
    run([launcher, "start"], env, scratch)
    try:
        yield json.loads(run([launcher, "status", "--json"], env, scratch))
    finally:
        if args.hpcc_dir is None:
            run([launcher, "stop"], env, scratch)


def series_entry(args: argparse.Namespace, processes: int, scratch: Path) -> Json:
    """Return the figures of one daemon; with `processes` 0 the daemon chooses the number."""
    results = scratch / "results"
    results.mkdir()
    clients = [Client.make(scratch / f"c{n}", args.headers) for n in range(args.clients)]
    with some_daemon(args, processes, scratch) as status:
        path, pid = str(status["socket"]), int(str(status["pid"]))
        for _ in range(2):
            settle()
            for client in clients:
                prime(path, client)
        for client in clients:  # each of the daemon's processes learns a hit separately
            hammer(path, client.frame, _WARM_UP_SECONDS)
        found = load(path, clients, args.seconds, pid, results)
    return {"processes": processes or "default", "clients": args.clients, **found}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.cpu_count() or 2
    parser.add_argument("--clients", type=int, default=cores, help="processes (one a core)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long (5)")
    parser.add_argument("--headers", type=int, default=10, help="of each compile (10)")
    parser.add_argument("--processes", default="0", help="of the daemon, one run for each: 1,2,4")
    parser.add_argument("--hpcc", type=Path, default=HPCC, help="the launcher (beside Python)")
    parser.add_argument("--hpcc-dir", type=Path, help="HPCC_DIR of a daemon to use")
    parser.add_argument("--scratch", type=Path, help="where to work (a tmpfs with room, if any)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.hpcc_dir and args.processes != "0":
        parser.error("--processes is for a daemon that this command starts")
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    series, kind = [], ""
    for word in args.processes.split(","):
        parent = args.scratch or default_parent()
        with tempfile.TemporaryDirectory(prefix="hpcc-load-", dir=parent) as directory:
            kind = file_system(Path(directory).resolve())
            try:
                series.append(series_entry(args, int(word), Path(directory).resolve()))
            except BenchError as error:
                sys.exit(f"load: {error}")
    if args.json:
        conditions = {"headers": args.headers, "cpus": os.cpu_count(), "file_system": kind}
        print(json.dumps({**conditions, "series": series}))
    else:
        for entry in series:
            print("  ".join(f"{key}={value}" for key, value in entry.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
