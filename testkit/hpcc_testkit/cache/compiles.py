"""Plays the launcher for a `CacheHandler`: sends a request, runs the command it gets, reports.

`FakeLauncher` does that. `FakeRemote` stands in for a farm: it compiles "remotely" in a temporary
directory with the host's compiler.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.cache.base.api import MAX_CAPTURE_BYTES, CompileRequest, Done, Exec, Run, RunReport
from hpcc.cache.cache import Cache
from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.cache.replay.handler import CacheHandler
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import (
    SOURCE_ROOT,
    ClientPolicy,
    Isolation,
    RemoteFailure,
    RemoteOutcome,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
    Toolchain,
)
from hpcc_testkit.guests.placed import placed_command
from hpcc_testkit.suite.newest_clang import with_newest

_GUEST_PATH: Final = re.compile(r"^((?:-[A-Za-z:-]+=?)?)/src(?=[/=]|$)")
_NAMING: Final = (".d", ".su", ".i", ".ii")  # outputs that name the directory of the compile
_PATH: Final = with_newest("/usr/local/bin:/usr/bin:/bin")


def counted(cache: Cache, *names: str) -> tuple[int, ...]:
    """Return these counters of a cache, 0 for those that it does not have."""
    counters = cache.counters()
    return tuple(counters.get(name, 0) for name in names)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the user sees of one compile, and how the handler answered: done, exec or run."""

    answer: str
    exit_code: int
    stdout: bytes
    stderr: bytes
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class FakeLauncher:
    """Sends one compile after the other to a handler, as the C launcher would."""

    handler: CacheHandler
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022
    stderr_is_tty: bool = False
    before_run: Callable[[Run], None] = lambda _run: None
    after_run: Callable[[Run], None] = lambda _run: None

    def request(self, argv: Sequence[str]) -> CompileRequest:
        """Build the request the launcher would send."""
        env = {"PATH": _PATH, **self.env}
        compiler = shutil.which(argv[0], path=env["PATH"])
        assert compiler is not None, f"no {argv[0]} on this machine"
        return CompileRequest(
            argv=tuple(map(os.fsencode, argv)),
            compiler=os.fsencode(compiler),
            cwd=os.fsencode(self.cwd),
            env={os.fsencode(k): os.fsencode(v) for k, v in env.items()},
            umask=self.umask,
            stderr_is_tty=self.stderr_is_tty,
        )

    def compile(self, *argv: str) -> Compiled:
        """Run one compile to its end."""
        request = self.request(argv)
        answer = self.handler.begin(request, lambda: False)
        match answer:
            case Done():
                return Compiled("done", answer.exit_code, answer.stdout, answer.stderr)
            case Exec():
                ended = self._run((request.compiler, *request.argv[1:]))
                return Compiled("exec", *ended, reason=answer.reason)
            case Run():
                return self._report(request, answer)

    def _report(self, request: CompileRequest, run: Run) -> Compiled:
        self.before_run(run)
        code, out, err = self._run(run.argv)
        self.after_run(run)
        is_retried = run.is_tentative and code > 0
        report = RunReport(
            exit_code=max(code, 0),
            signal=max(-code, 0),
            stdout=out[:MAX_CAPTURE_BYTES],
            stderr=err[:MAX_CAPTURE_BYTES],
            is_truncated=max(len(out), len(err)) > MAX_CAPTURE_BYTES,
        )
        finish = self.handler.finish(request, run, report)
        if is_retried:
            return Compiled("retried", *self._run((request.compiler, *request.argv[1:])))
        shown = finish.stderr if run.filter_headers else err + finish.stderr
        return Compiled("run", code, out + finish.stdout, shown)

    def _run(self, argv: Sequence[bytes]) -> tuple[int, bytes, bytes]:
        return run_bare(argv, cwd=self.cwd, env=self.env, umask=self.umask)


def log_counters(cache: Cache) -> None:
    """Write the counters to the log, which pytest shows if the test failed."""
    found = {name: count for name, count in cache.counters().items() if count}
    logging.getLogger(__name__).warning("counters: %s", found)


def run_bare(
    argv: Sequence[bytes | str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    umask: int = 0o022,
) -> tuple[int, bytes, bytes]:
    """Run a compiler without hpcc."""
    ended = subprocess.run(
        list(argv),
        cwd=cwd,
        env={"PATH": _PATH, **(env or {})},
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=100,
    )
    return ended.returncode, ended.stdout, ended.stderr


FARM: Final = Farm(
    scheduler="127.0.0.1:1",
    scheduler_certificate_pem="",
    tenant="local",
    principal="me",
    secret="none",  # noqa: S106 - no farm listens there
    image="toolchain@sha256:" + "a" * 64,
    isolation="local/none",
)


def farm_session(*image: Toolchain) -> FarmSession:
    """Return a session of `FARM` whose image has these compilers."""
    return FarmSession(
        scheduler=FARM.scheduler, tenant=FARM.tenant, image=FARM.image, agreement="",
        expires_at=time.time() + 3600, policy=ClientPolicy(), compilers=image,
    )  # fmt: skip


def own_toolchain(program: str) -> Toolchain:
    """Return what this machine's compiler says of itself."""
    path = os.fsencode(shutil.which(program, path=_PATH) or "")
    found = ask_compiler(path, os.fsencode(program), os.fsencode(_PATH))[0].toolchain
    assert found is not None, f"no {program} on this machine"
    return found


class FakeRemote:
    """A `RemoteClient` whose guest is a temporary directory and the host's compiler.

    `/src` in the arguments is replaced by that directory, and the directory in the outputs by
    `/src`. While `failure` is set, it is the answer. `programs` are directories before PATH.
    """

    def __init__(self) -> None:
        self.requests: list[RemoteRequest] = []
        self.programs: tuple[str, ...] = ()
        self.failure: RemoteFailure | None = None
        self.exit_code: int | None = None
        self.current: Farm | None = FARM
        self.is_cached = False
        self.said: FarmSession | None = None

    def session(self) -> FarmSession | None:
        return self.said

    def farm(self) -> Farm | None:
        return self.current

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        """Compile in a fresh directory that holds only the request's inputs."""
        self.requests.append(request)
        if self.failure is not None:
            return self.failure
        if is_cancelled():
            return RemoteFailure("cancelled", "the launcher went away")
        with tempfile.TemporaryDirectory() as name:
            return self._compile_in(request, Path(name).resolve())

    def _compile_in(self, request: RemoteRequest, root: Path) -> RemoteOutcome:
        for item in request.inputs:
            target = root / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.host_path, target)
        for output in request.outputs:
            (root / output).parent.mkdir(parents=True, exist_ok=True)
        for directory in (request.cwd, *request.directories):
            (root / directory).mkdir(parents=True, exist_ok=True)

        def spelled(text: str) -> str:
            return _GUEST_PATH.sub(lambda m: m[1] + str(root), text)

        argv = list(map(spelled, request.argv))
        env = {n: ";".join(map(spelled, v.split(";"))) for n, v in request.env}
        env["PATH"] = ":".join((*self.programs, env["PATH"]))
        code, out, err = self._run(argv, root, request.cwd, env)
        inside, guest = str(root).encode(), b"/src"
        outputs = []
        for path in request.outputs:
            if (root / path).exists():
                data = (root / path).read_bytes()
                if path.endswith(_NAMING):
                    data = data.replace(inside, guest)
                outputs.append(RemoteOutput(path, data, is_executable=False))
        return RemoteResult(
            exit_code=code if self.exit_code is None else self.exit_code,
            stdout=out.replace(inside, guest),
            stderr=err.replace(inside, guest),
            outputs=tuple(outputs),
            is_cached=self.is_cached,
            isolation=Isolation.LOCAL_NONE,
            action="0" * 64 + "/0",
        )

    def _run(
        self, argv: list[str], root: Path, cwd: str, env: dict[str, str]
    ) -> tuple[int, bytes, bytes]:
        return run_bare(argv, cwd=root / cwd, env=env)

    def close(self) -> None:
        """Do nothing: there is no connection to close."""


class PlacedRemote(FakeRemote):
    """A `FakeRemote` whose directory is `/src`, as in a guest: lengths of names count. Needs root.

    It has the machine's programs and headers, and nothing else.
    """

    def _run(
        self, argv: list[str], root: Path, cwd: str, env: dict[str, str]
    ) -> tuple[int, bytes, bytes]:
        place = root.with_name(f"{root.name}.root")
        place.mkdir()
        try:
            argv = [word.replace(str(root), SOURCE_ROOT) for word in argv]
            env = {name: value.replace(str(root), SOURCE_ROOT) for name, value in env.items()}
            command = placed_command(argv, root, place, cwd, env)
            return run_bare(command, cwd=root, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            place.rmdir()
