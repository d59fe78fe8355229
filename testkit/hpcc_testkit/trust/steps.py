"""Black-box scenarios: each step runs with the bare compiler and through hpcc, at the same path.

A scenario's tree is first built with bare compilers, step by step, and then again at the same path
through a real launcher and daemon. Every file, exit code and message must be equal after every
step, and the daemon's counters must match the step's expectation.

A cache relies on a file's stat only after the file was quiet for a while. So steps run in phases:
all scenarios do their first step, then share one pause, and so on.

Describe a scenario with `Scenario`, `step` and the edits below, and run a list with `Runner.run`
or `run_in_parallel`.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.core import HpccError
from hpcc_testkit.cache.launcher import counters, launcher_environment, stop_daemon
from hpcc_testkit.suite.newest_clang import with_newest

# Longer than the daemon's racy window; after it the daemon trusts a file's stat.
QUIET_SECONDS: Final = 2.1
_COUNTED_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02
_TIMEOUT_SECONDS: Final = 100

Edit = Callable[[Path], None]
"""Changes the tree of a scenario, given its root."""
Entry = tuple[str, int, bytes]
"""Kind, mode and content of one name in a tree; times are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a user can see after one command."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    tree: Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Edits, then one compile.

    `expect` is `hit`, `miss`, `bypass`, `nohit` (compiled, for any reason) or `any` (only equality
    counts). `settles` is false for a step that follows at once, without a pause.
    """

    argv: tuple[bytes, ...]
    edits: tuple[Edit, ...] = ()
    expect: str = "any"
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "."
    umask: int = 0o022
    stdin: bytes | None = None
    has_terminal: bool = False
    settles: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Steps in one tree. `mask` hides differences between two bare compiles (a clock)."""

    name: str
    steps: tuple[Step, ...]
    mask: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one step gave bare and through hpcc, and what the daemon counted meanwhile."""

    bare: Seen
    cached: Seen
    counted: Mapping[str, int]

    @property
    def answer(self) -> str:
        """Return how the daemon answered: `hit`, `miss`, `bypass` or `none`."""
        if self.counted.get("hit.local"):
            return "hit"
        if self.counted.get("miss.local"):
            return "miss"
        return "bypass" if any(n.startswith("bypass.") for n in self.counted) else "none"


def step(
    command: str | Sequence[str | bytes],
    expect: str = "any",
    *edits: Edit,
    env: Mapping[str, str] | None = None,
    cwd: str = ".",
    umask: int = 0o022,
    stdin: bytes | None = None,
    has_terminal: bool = False,
    settles: bool = True,
) -> Step:
    """Make a step from a command line and edits."""
    words = shlex.split(command) if isinstance(command, str) else command
    return Step(
        argv=tuple(w if isinstance(w, bytes) else os.fsencode(w) for w in words),
        edits=edits,
        expect=expect,
        env=env or {},
        cwd=cwd,
        umask=umask,
        stdin=stdin,
        has_terminal=has_terminal,
        settles=settles,
    )


def write(name: str | bytes, content: str | bytes, mode: int | None = None) -> Edit:
    """Write a file, and make its directories."""

    def edit(root: Path) -> None:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if mode is not None:
            os.chmod(path, mode)

    return edit


def write_keeping_times(name: str, content: str) -> Edit:
    """Change only the content; keep inode and mtime. The caller passes content of equal size."""

    def edit(root: Path) -> None:
        before = (root / name).stat()
        (root / name).write_text(content)
        os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    return edit


def delete(name: str) -> Edit:
    """Remove a file or a tree."""

    def edit(root: Path) -> None:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    return edit


def move(old: str, new: str) -> Edit:
    """Rename a file or directory and replace the target."""
    return lambda root: os.replace(root / old, root / new)


def copy(old: str, new: str) -> Edit:
    """Copy a file or a tree with its times."""

    def edit(root: Path) -> None:
        if (root / old).is_dir():
            shutil.copytree(root / old, root / new, symlinks=True)
        else:
            shutil.copy2(root / old, root / new)

    return edit


def link(target: str, name: str) -> Edit:
    """Make a symbolic link, replacing an older one in one step."""

    def edit(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        aside = root / (name + ".new-link")
        aside.symlink_to(target)
        os.replace(aside, root / name)

    return edit


def hard_link(old: str, new: str) -> Edit:
    """Give a file a second name."""
    return lambda root: os.link(root / old, root / new)


def mkdir(*names: str, mode: int = 0o755) -> Edit:
    """Make directories."""

    def edit(root: Path) -> None:
        for name in names:
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name).chmod(mode)

    return edit


def set_times(name: str, seconds: int) -> Edit:
    """Set access and modification time."""
    return lambda root: os.utime(root / name, (seconds, seconds))


def change_mode(name: str, mode: int) -> Edit:
    """Set the permission bits."""
    return lambda root: os.chmod(root / name, mode)


def append_in_place(name: str, data: bytes) -> Edit:
    """Add bytes to an existing file without replacing it."""

    def edit(root: Path) -> None:
        with open(root / name, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(data)

    return edit


def run_tool(*argv: str) -> Edit:
    """Run a program other than the compile under test, without hpcc."""

    def edit(root: Path) -> None:
        subprocess.run(argv, cwd=root, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)

    return edit


def snapshot(root: Path, mask: Callable[[bytes], bytes] = bytes) -> dict[bytes, Entry]:
    """Return every name below a directory with kind, mode and content."""
    found: dict[bytes, Entry] = {}
    top = os.fsencode(root)
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            if name.endswith((b".gch", b".pch")):
                continue  # these hold times and addresses, so they always differ
            path = os.path.join(directory, name)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            key = os.path.relpath(path, top)
            if stat.S_ISLNK(status.st_mode):
                found[key] = ("link", 0, os.readlink(path))
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    found[key] = ("file", mode, mask(file.read()))
            else:
                found[key] = ("other", mode, b"")
    return found


def run_command(
    argv: Sequence[bytes], *, cwd: Path, env: Mapping[str, str], step: Step
) -> tuple[int, bytes, bytes]:
    """Run a step's command; with a terminal, both streams arrive as one."""
    if step.has_terminal:
        code, text = _run_on_terminal(argv, cwd=cwd, env=env, umask=step.umask)
        return code, b"", text
    ended = subprocess.run(
        list(argv),
        cwd=cwd,
        env=dict(env),
        umask=step.umask,
        input=step.stdin,
        stdin=subprocess.DEVNULL if step.stdin is None else None,
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    return ended.returncode, ended.stdout, ended.stderr


def _run_on_terminal(
    argv: Sequence[bytes], *, cwd: Path, env: Mapping[str, str], umask: int
) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            umask=umask,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    text = bytearray()
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(ours, 1 << 16):
            text += chunk
    os.close(ours)
    return process.wait(_TIMEOUT_SECONDS), bytes(text)


class Runner:
    """Runs scenarios one after the other, with one private daemon."""

    def __init__(self, launcher: Path, directory: Path, **extra: str) -> None:
        self._launcher = launcher
        self._work = directory / "w"
        self.env = launcher_environment(directory / "h", **extra)
        self._base = {
            "PATH": with_newest("/usr/local/bin:/usr/bin:/bin"),
            "HOME": str(directory / "home"),
        }

    def run(self, scenarios: Sequence[Scenario]) -> dict[str, list[Outcome]]:
        """Return the outcomes of every step, and end the daemon."""
        bare = {s.name: self._run_bare(s) for s in scenarios}
        try:
            cached = self._run_cached(scenarios)
        finally:
            with contextlib.suppress(HpccError):
                stop_daemon(self.env)
        return {
            name: [
                Outcome(bare=b, cached=c, counted=n)
                for b, (c, n) in zip(steps, cached[name], strict=True)
            ]
            for name, steps in bare.items()
        }

    def _run_bare(self, scenario: Scenario) -> list[Seen]:
        root = self._fresh(scenario)
        seen = []
        for one in scenario.steps:
            for edit in one.edits:
                edit(root)
            seen.append(self.see(scenario, one, root, prefix=()))
        return seen

    def _run_cached(
        self, scenarios: Sequence[Scenario]
    ) -> dict[str, list[tuple[Seen, Mapping[str, int]]]]:
        results: dict[str, list[tuple[Seen, Mapping[str, int]]]] = {s.name: [] for s in scenarios}
        phases = {s.name: _phases(s) for s in scenarios}
        roots = {s.name: self._fresh(s) for s in scenarios}
        for number in range(max(map(len, phases.values()))):
            waiting = [s for s in scenarios if number < len(phases[s.name])]
            for scenario in waiting:
                for edit in phases[scenario.name][number][0].edits:
                    edit(roots[scenario.name])
            threading.Event().wait(QUIET_SECONDS)
            for scenario in waiting:
                root = roots[scenario.name]
                for index, one in enumerate(phases[scenario.name][number]):
                    for edit in one.edits if index else ():
                        edit(root)
                    results[scenario.name].append(self.ask(scenario, one, root))
        return results

    def ask(self, scenario: Scenario, one: Step, root: Path) -> tuple[Seen, Mapping[str, int]]:
        """Compile through hpcc; return what was seen and what the daemon counted."""
        before = self.counters()
        prefix = (os.fsencode(self._launcher), b"wrap")
        seen = self.see(scenario, one, root, prefix=prefix)
        after = self.counters()
        deadline = time.monotonic() + _COUNTED_SECONDS
        # A replay is counted after its answer is sent.
        while after == before and time.monotonic() < deadline:
            threading.Event().wait(_POLL_SECONDS)
            after = self.counters()
        return seen, {n: v - before.get(n, 0) for n, v in after.items() if v > before.get(n, 0)}

    def counters(self) -> dict[str, int]:
        """Return the daemon's counters, or {} without a daemon."""
        try:
            return counters(self.env)
        except HpccError:
            return {}

    def see(self, scenario: Scenario, one: Step, root: Path, *, prefix: tuple[bytes, ...]) -> Seen:
        """Run one step's command behind `prefix` and return what was seen."""
        # A variable in each key keeps the results of scenarios apart: their texts are alike, and a
        # content key would find those of another scenario. No catalogue has such a name.
        own = {"LANGUAGE": scenario.name}
        env = {**self._base, **own, "HPCC_DIR": self.env["HPCC_DIR"]}
        env |= {k: v.replace("%ROOT%", str(root)) for k, v in one.env.items()}
        argv = [w.replace(b"%ROOT%", os.fsencode(root)) for w in one.argv]
        code, out, err = run_command((*prefix, *argv), cwd=root / one.cwd, env=env, step=one)
        tree = snapshot(root, scenario.mask)
        return Seen(exit_code=code, stdout=scenario.mask(out), stderr=scenario.mask(err), tree=tree)

    def _fresh(self, scenario: Scenario) -> Path:
        root = self._work / scenario.name
        if root.exists():
            shutil.rmtree(root)
        root.mkdir(parents=True)
        return root


def _phases(scenario: Scenario) -> list[list[Step]]:
    phases: list[list[Step]] = []
    for one in scenario.steps:
        if one.settles or not phases:
            phases.append([one])
        else:
            phases[-1].append(one)
    return phases


def run_in_parallel(
    launcher: Path, directory: Path, scenarios: Sequence[Scenario], *, shards: int = 2
) -> dict[str, list[Outcome]]:
    """Run scenarios in several daemons at once; raise the first failure to run."""
    results: dict[str, list[Outcome]] = {}
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            found = Runner(launcher, directory / str(number)).run(scenarios[number::shards])
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            errors.append(error)
        else:
            results.update(found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(shards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def differences(outcome: Outcome) -> list[str]:
    """Return the differences between bare and cached, for the message of a failing test."""
    bare, cached = outcome.bare, outcome.cached
    found = [
        f"{what}: bare {getattr(bare, what)!r}, hpcc {getattr(cached, what)!r}"
        for what in ("exit_code", "stdout", "stderr")
        if getattr(bare, what) != getattr(cached, what)
    ]
    for name in sorted(bare.tree.keys() | cached.tree.keys()):
        old, new = bare.tree.get(name), cached.tree.get(name)
        if old != new:
            found.append(f"{name!r}: bare {_short(old)}, hpcc {_short(new)}")
    return found


def _short(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    kind, mode, data = entry
    shown = data if len(data) < 200 else b"%d bytes" % len(data)
    return f"{kind} {mode:o} {shown!r}"
