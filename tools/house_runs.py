"""Run a checkout's own daemon and record which product files a compile passes through.

`tools/house_figures.py` prints what this module returns. Nothing here imports the product: the
checkout may be an older or a newer one, with other paths. It is entered through what stays the
same: `python -m hpcc.daemon`, `tools/hatch_build.py` for the launcher, `python -m hpcc.cli`,
HPCC_DIR, and the test helper `farm_under_test`, which is found by its name.

The recorder is a `sitecustomize` module on PYTHONPATH, so that it also runs in the dispatcher
that the daemon starts. It counts with sys.monitoring, which sees every thread, and writes each
entry into a product function and each exit with its time. Both sides use CLOCK_MONOTONIC, so the
events of one compile are those between its start and its end.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

HELPER_DIRECTORIES: Final = ("src/hpcc/testing", "testkit/hpcc_testkit")
_GENERATED: Final = "_proto"
_STEP_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02
# A source younger than this is not kept: its stat cannot tell a later change.
_YOUNG_SECONDS: Final = 2.3
# What a daemon still does after its answer (it makes the replay and stores records) is part of
# the compile; a separate thread flushes the counters every second.
_SETTLE_SECONDS: Final = 0.3
IMPORT_ROUNDS: Final = 7
ENTER: Final = "enter"
_COMMAND: Final = ("gcc", "-O2", "-g", "-Wall", "-MD", "-Iinc", "-c", "src/a.c", "-o", "a.o")
_ROOT_MARK: Final = ".hpcc"
_SOURCES: Final = {
    "src/a.c": '#include <stdio.h>\n#include "b.h"\nint f(FILE *f) { return f == 0 ? B : 0; }\n',
    "inc/b.h": "#define B 7\n",
}

_RECORDER: Final = """
import atexit, json, os, sys, threading, time

OUTPUT, PRODUCT = {output!r}, {product!r}

def start():
    monitoring, events = sys.monitoring, sys.monitoring.events
    seen, process = [], os.getpid()

    def watcher(kind, can_disable):
        def on_event(code, *_):
            if code.co_filename.startswith(PRODUCT):
                function = code.co_qualname
                if function == "<module>" and sys._getframe(1).f_globals["__name__"] == "__main__":
                    function = "<main>"
                seen.append((time.monotonic_ns(), threading.get_ident(), kind,
                             code.co_filename, function))
            elif can_disable:
                return monitoring.DISABLE
        return on_event

    def write():
        monitoring.set_events(tool, 0)
        if os.getpid() == process:
            with open(os.path.join(OUTPUT, f"{{process}}.part"), "w") as file:
                print(json.dumps([sys.orig_argv, list(sys.modules)]), file=file)
                for row in seen:
                    print(*row, sep="\\t", file=file)
            os.rename(file.name, file.name.removesuffix(".part"))

    tool = monitoring.PROFILER_ID
    monitoring.use_tool_id(tool, "house figures")
    kinds = {{"PY_START": ("enter", True), "PY_RESUME": ("enter", True),
             "PY_THROW": ("enter", False), "PY_RETURN": ("leave", True),
             "PY_YIELD": ("leave", True), "PY_UNWIND": ("leave", False)}}
    for name, (kind, can_disable) in kinds.items():
        monitoring.register_callback(tool, getattr(events, name), watcher(kind, can_disable))
    monitoring.set_events(tool, sum(getattr(events, name) for name in kinds))
    atexit.register(write)

start()
"""

_FARM: Final = """
import asyncio, importlib, pathlib, sys

module, directory, farm_file = sys.argv[1:]
farm_under_test = importlib.import_module(module).farm_under_test

async def main():
    async with farm_under_test(pathlib.Path(directory)) as farm, farm.serving():
        pathlib.Path(farm_file).write_text(farm.farm().to_json())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""

_IMPORTS: Final = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
for name in sys.argv[1:]:
    __import__(name)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


class Event(NamedTuple):
    """One entry into a product function, or one exit: time, thread, kind, file, function."""

    at: int
    thread: str
    kind: str
    file: str
    function: str


@dataclass(slots=True)
class Passage:
    """Which files a compile passes through, and how execution moves between them.

    `calls` and `returns` count each move that was executed, so they grow with the headers of the
    compile. `steps` are the different ones: a file and a function of another file that is called
    from there. `targets` are the functions alone, which is what a reader has to look up.
    """

    files: set[str] = field(default_factory=set)
    calls: int = 0
    returns: int = 0
    steps: set[tuple[str, str, str]] = field(default_factory=set)

    @property
    def targets(self) -> set[tuple[str, str]]:
        return {(file, function) for _, file, function in self.steps}


def joined(parts: Iterable[Passage]) -> Passage:
    """Add up the passages of several threads or processes."""
    total = Passage()
    for part in parts:
        total.files |= part.files
        total.steps |= part.steps
        total.calls += part.calls
        total.returns += part.returns
    return total


def passages(events: list[Event], begin: int, end: int) -> dict[str, Passage]:
    """Follow each thread's call stack, and count what happens between two times.

    What an import runs does not count: it happens once in a process. The recorder calls the
    program's own module "<main>", which is not an import.
    """
    by_thread: dict[str, Passage] = defaultdict(Passage)
    stacks: dict[str, list[tuple[str, bool]]] = {}
    for at, thread, kind, file, function in events:
        stack = stacks.setdefault(thread, [])
        caller, is_importing = stack[-1] if stack else (file, False)
        if kind == ENTER:
            callee, is_importing = file, is_importing or function == "<module>"
            stack.append((callee, is_importing))
        elif stack:
            callee, is_importing = stack.pop()
            caller, _ = stack[-1] if stack else (callee, False)
        else:
            callee = caller
        if is_importing or not begin <= at <= end:
            continue
        found = by_thread[thread]
        found.files.add(file)
        if caller != callee and kind == ENTER:
            found.calls += 1
            found.steps.add((caller, callee, function))
        elif caller != callee:
            found.returns += 1
    return dict(by_thread)


@dataclass(frozen=True, slots=True)
class Trace:
    """What the recorder of one process wrote; `modules` are in the order of their imports."""

    argv: list[str]
    modules: list[str]
    events: list[Event]

    @classmethod
    def read(cls, path: Path, product: Path) -> Trace:
        head, *rows = path.read_text().splitlines()
        argv, modules = json.loads(head)
        events = []
        for at, thread, kind, file, function in (row.split("\t") for row in rows):
            name = str(Path(file).relative_to(product))
            if not name.startswith((f"{_GENERATED}/", "testing/")):
                events.append(Event(int(at), thread, kind, name, function))
        return cls(argv, modules, events)


def find_helper(root: Path, function: str) -> str:
    """Return the name of the test helper module that defines a function.

    Raises:
        LookupError: no module does.
    """
    for directory in HELPER_DIRECTORIES:
        base = root / directory
        source_root = root / directory.split("/", maxsplit=1)[0]
        for path in sorted(base.rglob("*.py")):
            tree = ast.parse(path.read_bytes())
            if any(getattr(node, "name", "") == function for node in tree.body):
                name = ".".join(path.relative_to(source_root).with_suffix("").parts)
                return name.removesuffix(".__init__")
    raise LookupError(f"no test helper defines {function}")


class Bench:
    """One user's hpcc from a checkout, in a scratch directory, with a small project."""

    def __init__(self, root: Path, python: Path, scratch: Path) -> None:
        self.root, self.python, self.scratch = root, python, scratch
        self.product = root / "src" / "hpcc"
        self.home, self.work, self.launcher = scratch / "home", scratch / "work", scratch / "hpcc"
        self._traces, self._site = scratch / "traces", scratch / "site"
        for directory in (self._traces, self._site, self.home / "config", self.home / "state"):
            directory.mkdir(parents=True)
        text = _RECORDER.format(output=str(self._traces), product=f"{self.product}/")
        (self._site / "sitecustomize.py").write_text(text)
        # All hits are answered by the process that is traced.
        (self.home / "config" / "hpcc.toml").write_text("[daemon]\nprocesses = 1\n")
        for name, text in _SOURCES.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        self.run(str(root / "tools" / "hatch_build.py"), str(self.launcher))
        time.sleep(_YOUNG_SECONDS)

    def env(self, *, traced: bool = False) -> dict[str, str]:
        path = [self.root / "src", self.root / "testkit"]
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HPCC_DIR": str(self.home),
            "LC_ALL": "C",
            "PYTHONPATH": os.pathsep.join(map(str, [self._site, *path] if traced else path)),
            # The checkout stays as it is, and imports after the first one find compiled modules.
            "PYTHONPYCACHEPREFIX": str(self.scratch / "pycache"),
        }

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            [self.python, "-P", *argv],
            env=self.env(),
            cwd=self.scratch,
            capture_output=True,
            text=True,
            timeout=_STEP_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]} failed: {done.stderr[-2000:]}")
        return done.stdout

    def cli(self, *words: str) -> str:
        return self.run("-m", "hpcc.cli", *words)

    def counters(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.cli("stats", "--json"))
        return found

    def compile(self) -> tuple[int, int]:
        """Compile through hpcc; return when it began and when the daemon was done with it."""
        begin = time.monotonic_ns()
        subprocess.run(
            [self.launcher, *_COMMAND],
            cwd=self.work,
            env=self.env(),
            timeout=_STEP_SECONDS,
            check=True,
        )
        time.sleep(_SETTLE_SECONDS)
        return begin, time.monotonic_ns()

    @contextmanager
    def process(self, *argv: str, traced: bool) -> Iterator[subprocess.Popen[str]]:
        """Run a Python process; end it in order, so that it writes its trace."""
        with open(self.scratch / "log", "a") as log:  # noqa: PTH123 - a descriptor for the child
            process = subprocess.Popen(
                [str(self.python), "-P", *argv],
                env=self.env(traced=traced),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            yield process
            if argv[0] == "-m":
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=_STOP_SECONDS)
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def daemon(self, *, traced: bool) -> Iterator[None]:
        with self.process("-m", "hpcc.daemon", traced=traced) as process:
            self._wait(lambda: any((self.home / "run").glob("*.sock*")), process)
            # Its answer means that it has started all its parts.
            self.cli("status")
            yield

    @contextmanager
    def farm(self) -> Iterator[None]:
        """Run a scheduler and a worker with fake guests, which run compilers of this machine."""
        farm_file = self.home / "state" / "farm.json"
        helper = find_helper(self.root, "farm_under_test")
        directory = self.scratch / "farm"
        directory.mkdir()
        argv = ("-c", _FARM, helper, str(directory), str(farm_file))
        with self.process(*argv, traced=True) as process:
            self._wait(farm_file.exists, process)
            yield

    def _wait(self, is_there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while not is_there():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {(self.scratch / 'log').read_text()[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def traces(self) -> Mapping[str, Trace]:
        """Return the traces written since the last call: of daemon, dispatcher and farm."""
        found: dict[str, Trace] = {}
        # The dispatcher ends by itself when its daemon is gone.
        time.sleep(1.0)
        for path in sorted(self._traces.iterdir()):
            trace = Trace.read(path, self.product)
            is_farm = any("farm_under_test" in word for word in trace.argv)
            is_daemon = "hpcc.daemon" in trace.argv
            found["farm" if is_farm else "daemon" if is_daemon else "dispatcher"] = trace
            path.unlink()
        return found

    def import_seconds(self, modules: list[str]) -> tuple[float, float]:
        """Return how long importing these modules takes in a new process: median wall and CPU."""
        self.run("-c", _IMPORTS, *modules)  # compiles them
        rounds = [self.run("-c", _IMPORTS, *modules).split() for _ in range(IMPORT_ROUNDS)]
        wall, cpu = zip(*rounds, strict=True)
        return statistics.median(map(float, wall)), statistics.median(map(float, cpu))


def _grew(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    return sorted(name for name, value in after.items() if value > before.get(name, 0))


def first_local_hit(root: Path, python: Path, scratch: Path) -> dict[str, Any]:
    """Answer one compile from the cache in a daemon that was just started, and trace it."""
    bench = Bench(root, python, scratch)
    with bench.daemon(traced=False):
        bench.compile()
    before = bench.counters()
    with bench.daemon(traced=True):
        window = bench.compile()
    grown = _grew(before, bench.counters())
    if not any(name.startswith("hit") for name in grown):
        raise RuntimeError(f"the second compile was not a hit: {grown}")
    trace = bench.traces()["daemon"]
    modules = [name for name in trace.modules if name.split(".")[0] == "hpcc"]
    return {
        # One thread answers a hit. Others only wake up now and then, for counters and waits.
        "passage": max(passages(trace.events, *window).values(), key=lambda p: len(p.steps)),
        "modules": trace.modules,
        "product_modules": modules,
        "import_seconds": bench.import_seconds(modules),
    }


def farm_miss(root: Path, python: Path, scratch: Path) -> dict[str, Passage]:
    """Compile once on a farm of fake guests; return what each process passed through."""
    bench = Bench(root, python, scratch)
    with bench.farm():
        (bench.work / _ROOT_MARK).touch()
        before = bench.counters()
        with bench.daemon(traced=True):
            window = bench.compile()
        grown = _grew(before, bench.counters())
    if not any(name.startswith("miss.remote") for name in grown):
        raise RuntimeError(f"the compile did not run on the farm: {grown}")
    return {
        name: joined(passages(trace.events, *window).values())
        for name, trace in bench.traces().items()
    }
