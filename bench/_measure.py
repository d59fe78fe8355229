"""Wall and CPU of commands and of a daemon, taken side by side."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one round, the daemon's CPU included."""

    wall: float
    cpu: float


def process_tree_cpu_seconds(pid: int | None) -> float:
    """CPU of a process and its living descendants so far, in seconds, all threads."""
    if pid is None:
        return 0.0
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    total, todo = 0.0, [pid]
    while todo:
        current = todo.pop()
        todo.extend(children.get(current, []))
        for task in Path(f"/proc/{current}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0]) / 1e9
            except OSError:
                continue
    return total


def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
    done = subprocess.run(argv, env=dict(env), cwd=cwd, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {argv} failed: {done.stderr.decode(errors='replace')[:2000]}")


def spawn_many(argv: Sequence[str], env: Mapping[str, str], cwd: Path, times: int) -> None:
    """Run one command so many times in turn, with as little of our own cost as there can be.

    No pipe and no shell: beside a hit of a fraction of a millisecond they would be half the figure.
    """
    program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
    back = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    null = os.open(os.devnull, os.O_RDWR)
    os.chdir(cwd)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        for _ in range(times):
            pid = os.posix_spawn(program, argv, env, file_actions=actions)
            if os.waitpid(pid, 0)[1]:
                raise SystemExit(f"bench: {argv} failed")
    finally:
        os.fchdir(back)
        os.close(back)
        os.close(null)


def measure(work: Callable[[], None], daemon_pid: int | None = None) -> Cost:
    """Cost of `work`: its children's CPU by rusage, the daemon's by the scheduler's own count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    daemon_before = process_tree_cpu_seconds(daemon_pid)
    started = time.perf_counter()
    work()
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu + process_tree_cpu_seconds(daemon_pid) - daemon_before)


def medians(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def clean_env(**extra: str) -> dict[str, str]:
    """An environment without the caller's compiler and cache settings."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C", **extra}
