"""The daemon's handler on Windows names the build of each compile that may go to a farm."""

from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from hpcc.cache.base.api import CompileRequest, Done
from hpcc.cache.root.build_identity import Builds
from hpcc.core import WindowsPathError, parse_windows_path
from hpcc.core.windows_paths import WindowsPath
from hpcc.daemon.windows_process import OnFarm
from hpcc.wire.build_facts import encode_facts

REQUEST = CompileRequest(
    argv=(b"cl.exe", b"/c", b"a.c"),
    compiler=b"C:\\VC\\cl.exe",
    cwd=b"C:\\p\\sub",
    env={},
    umask=0,
    stderr_is_tty=False,
)


def handler(
    seen: list[str],
    programs: list[tuple[bytes, bytes]] | None = None,
    ended: list[bool] | None = None,
) -> OnFarm:
    def begin(compile_: Any, _is_cancelled: object) -> Done:
        seen.append(compile_.request.build)
        if programs is not None:
            programs.append((compile_.request.compiler, compile_.request.argv[0]))
        return Done(0, b"", b"")

    def find_root(cwd: bytes) -> WindowsPath:
        if cwd.startswith(b"\\\\"):
            raise WindowsPathError("a server's directory")
        return parse_windows_path(cwd.decode()[:4])

    counts = Counter[str]()
    counters = SimpleNamespace(add=lambda name: counts.update([name]))
    farm = SimpleNamespace(begin=begin)
    ended = [] if ended is None else ended
    builds = Builds(counters.add, time.monotonic, lambda cwd: cwd[:4])
    records = SimpleNamespace(builds=builds, fallback=str)
    return OnFarm(
        cast("Any", counters),
        "",
        cast("Any", SimpleNamespace(end_kept_hits=lambda: ended.append(True), records=records)),
        cast("Any", None),
        farm=cast("Any", farm),
        has_farm=lambda: True,
        find_root=find_root,
        resolve=lambda program: program.replace("PROGRA~1", "Program Files"),
    )


def test_a_compile_has_the_named_build_or_a_guess_for_its_root() -> None:
    seen: list[str] = []
    made = handler(seen)
    facts = encode_facts([(b"HPCC_BUILD", b"release-7")])
    for request in (
        REQUEST._replace(facts=facts),
        REQUEST,
        REQUEST._replace(cwd=b"C:\\p"),
        REQUEST._replace(cwd=b"C:\\q"),
    ):
        assert isinstance(made.begin(request, lambda: False), Done)
    named, one, two, other = seen
    assert named == "release-7"
    assert one == two != other
    assert one.startswith("guessed/")


def test_a_farm_gets_the_long_name_of_a_compiler() -> None:
    programs: list[tuple[bytes, bytes]] = []
    request = REQUEST._replace(compiler=b"C:\\PROGRA~1\\LLVM\\cl.exe", argv=(b"C:\\PROGRA~1\\cl",))
    handler([], programs).begin(request, lambda: False)
    name = b"C:\\Program Files\\LLVM\\cl.exe"
    assert programs == [(name, name)]


def test_with_a_farm_launchers_answer_no_hits_by_themselves() -> None:
    ended: list[bool] = []
    handler([], ended=ended).begin(REQUEST, lambda: False)
    assert ended == [True]
