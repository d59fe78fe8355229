"""Compiles that run here because the farm is full: which ones, where they are kept, what is counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from hpcc.cache.base.api import CompileRequest, Run
from hpcc.cache.cache import Cache
from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.cache.remote.fallback import permitted
from hpcc.cache.remote.local_slots import are_compared
from hpcc.cache.results.records_read import read_records
from hpcc.cli.base.fallback_line import fallback_line
from hpcc.cli.cache.explain import explain_lines
from hpcc.cli.cache.stats import stats_lines
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import (
    ClientPolicy,
    Fallback,
    LocalSlots,
    RemoteOutcome,
    RemoteRequest,
    RunHere,
    Toolchain,
)
from hpcc.dispatch.parity import EffectivePolicy
from hpcc_testkit.cache.compiles import FARM, FakeLauncher, FakeRemote, run_bare

_ARGV = ("gcc", "-Iinc", "-O2", "-MD", "-c", "src/main.c", "-o", "out.o")


def here() -> Toolchain:
    found, _ = ask_compiler(b"/usr/bin/gcc", b"gcc", b"/usr/bin:/bin")
    assert found.toolchain is not None
    return found.toolchain


def said(image: Toolchain | None, fallback: Fallback | None = "warn") -> FarmSession:
    return FarmSession(
        scheduler=FARM.scheduler,
        tenant=FARM.tenant,
        image=FARM.image,
        expires_at=time.time() + 3600.0,
        policy=ClientPolicy(fallback=fallback, parity="warn"),
        compilers=None if image is None else (image,),
    )


class FullRemote(FakeRemote):
    """A farm whose dispatcher gives a local slot to each request that permits one."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[bool] = []
        self.given = 0
        self.on_slot: Callable[[], None] = lambda: None
        self.said = said(here())

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        if request.may_run_here == "off":
            return super().compile(request, is_cancelled)
        self.requests.append(request)
        self.given += 1
        self.on_slot()
        return RunHere(self.ends.append)


@pytest.fixture
def remote() -> FullRemote:
    return FullRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: FullRemote) -> Cache:
    return make_cache(remote)


def slots(cache: Cache) -> tuple[int, int, int]:
    """Return compiles in local slots, all compiles here, and those of the farm."""
    counters = cache.counters()
    names = ("local-slot", "miss.local", "miss.remote.executed")
    return tuple(counters.get(name, 0) for name in names)  # type: ignore[return-value]  # three names


def test_a_compile_runs_here_is_counted_apart_and_is_found_at_the_rebuild(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache, paths: Paths
) -> None:
    first = launcher.compile(*_ARGV)
    assert (first.answer, first.exit_code) == ("run", 0)
    assert (remote.ends, slots(cache)) == ([True], (1, 1, 0))
    data = (launcher.cwd / "out.o").read_bytes()
    (launcher.cwd / "out.o").unlink()
    second = launcher.compile(*_ARGV)
    assert second.answer == "done"
    assert (launcher.cwd / "out.o").read_bytes() == data
    assert len(remote.requests) == 1, "the farm is not asked again"
    counters = cache.counters()
    assert counters["hit.local"] == 1
    assert not [name for name in counters if name.startswith(("fallback.", "bypass."))]
    records = read_records(str(paths.cache))
    assert [r.fallback for r in records] == ["local-slot", ""]
    assert "  local slot    all places of the farm were taken" in explain_lines(records[:1])
    assert fallback_line(records, time.time()).startswith("no compile of the last hour fell back")
    assert [li for li in stats_lines(counters, 1) if "(local slots)" in li] == [
        "         1  of these while the farm was full (local slots)"
    ]


def test_the_object_is_the_farms(
    launcher: FakeLauncher, remote: FullRemote, make_cache: Callable[..., Cache]
) -> None:
    launcher.compile(*_ARGV)
    data = (launcher.cwd / "out.o").read_bytes()
    launcher.handler = make_cache(remote, Settings(remote=RemoteSettings(local_slots="off")))
    assert launcher.compile(*_ARGV).answer == "done"
    assert slots(launcher.handler)[2] >= 1, "without slots the private result is not used"
    assert (launcher.cwd / "out.o").read_bytes() == data
    run_bare(_ARGV, cwd=launcher.cwd)
    assert (launcher.cwd / "out.o").read_bytes() == data


@pytest.mark.parametrize("path", ["src/main.c", "inc/conf.h"])
def test_an_edit_is_a_miss_and_an_edit_back_a_hit(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache, project: Any, path: str
) -> None:
    text = (launcher.cwd / path).read_text()
    launcher.compile(*_ARGV)
    project.write(path, text + "extern int more;\n")
    project.settle()
    assert launcher.compile(*_ARGV).answer == "run"
    project.write(path, text)
    project.settle()
    assert launcher.compile(*_ARGV).answer == "done"
    assert (remote.given, slots(cache)) == (2, (2, 2, 0))


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-g",), ""),
        (("-fsanitize=address",), ""),
        (("--coverage",), ""),
        (("-ffile-prefix-map=/a=/b",), ""),
        (("-march=native",), ""),
        (("-frecord-gcc-switches",), ""),
        ((), "const char *where(void) { return __FILE__; }\n"),
        ((), "#include <assert.h>\nvoid check(int x) { assert(x); }\n"),
        ((), "const char *where(void) { return __builtin_FILE(); }\n"),
        ((), "#include <linux/fs.h>\n"),
        ((), "#if __has_include(<only-in-the-image.h>)\nint there;\n#endif\n"),
        (
            (),
            "#define HAVE(x) __has_include(x)\n#if HAVE(<only-in-the-image.h>)\nint there;\n#endif\n",
        ),
    ],
)
def test_what_may_name_a_place_or_was_not_compared_waits_for_the_farm(
    launcher: FakeLauncher,
    remote: FullRemote,
    cache: Cache,
    project: Any,
    flags: tuple[str, ...],
    text: str,
) -> None:
    source = (launcher.cwd / "src/main.c").read_text()
    project.write("src/main.c", text + source)
    project.settle()
    launcher.compile("gcc", *flags, *_ARGV[1:])
    assert slots(cache)[0] == 0
    assert remote.ends == [False] * remote.given, "each slot was given back"
    if text:
        assert (remote.given, slots(cache)) == (1, (0, 0, 1))


def test_any_permits_what_may_differ(
    launcher: FakeLauncher, remote: FullRemote, make_cache: Callable[..., Cache]
) -> None:
    remote.said = said(None)
    cache = make_cache(remote, Settings(remote=RemoteSettings(local_slots="any")))
    launcher.handler = cache
    assert launcher.compile("gcc", "-g", *_ARGV[1:]).answer == "run"
    assert (remote.ends, slots(cache)) == ([True], (1, 1, 0))
    strict = make_cache(remote)
    launcher.handler, remote.said = strict, said(here())
    assert launcher.compile("gcc", "-g", *_ARGV[1:]).answer == "done"
    assert slots(strict)[2] >= 1, "what was made under `any` is not served under `exact`"


@pytest.mark.parametrize("image", [None, "version", "headers", "untold"])
def test_no_compile_runs_here_without_exact_parity(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache, image: str | None
) -> None:
    host = here()
    other = {
        None: None,
        "version": dataclasses.replace(host, build="another"),
        "headers": dataclasses.replace(host, headers=(("/usr/include", "0" * 64),)),
        "untold": dataclasses.replace(host, headers=()),
    }[image]
    remote.said = said(other)
    assert launcher.compile(*_ARGV).answer == "done"
    assert (remote.given, slots(cache)) == (0, (0, 0, 1))


def test_where_fallback_is_forbidden_nothing_runs_here(
    launcher: FakeLauncher, remote: FullRemote, make_cache: Callable[..., Cache]
) -> None:
    for users, tenants in (("never", "warn"), ("warn", "never")):
        for local_slots in ("exact", "any"):
            remote.said = said(here(), tenants)  # type: ignore[arg-type]  # words of the settings
            values: Any = {"fallback": users, "local_slots": local_slots}
            launcher.handler = make_cache(remote, Settings(remote=RemoteSettings(**values)))
            launcher.compile(*_ARGV)
    assert remote.given == 0


def test_a_policy_that_changes_while_a_compile_waits_counts(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache
) -> None:
    def forbid() -> None:
        remote.said = said(here(), "never")

    remote.on_slot = forbid
    assert launcher.compile(*_ARGV).answer == "done"
    assert (remote.given, remote.ends, slots(cache)) == (1, [False], (0, 0, 1))


def test_an_image_that_changes_while_a_compile_waits_counts(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache
) -> None:
    def change() -> None:
        remote.said = said(dataclasses.replace(here(), build="another"))

    remote.on_slot = change
    assert launcher.compile(*_ARGV).answer == "done"
    assert (remote.given, remote.ends, slots(cache)) == (1, [False], (0, 0, 1))


def test_a_compile_that_fails_in_its_slot_gives_it_back(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache, project: Any
) -> None:
    project.write("src/main.c", "int main(void) { return wrong; }\n")
    project.settle()
    ended = launcher.compile(*_ARGV)
    assert (ended.exit_code, remote.ends) == (1, [True])
    assert slots(cache)[0] == 1


def request_of(launcher: FakeLauncher) -> CompileRequest:
    argv = tuple(word.encode() for word in _ARGV)
    env = {b"PATH": b"/usr/bin:/bin"}
    return CompileRequest(argv, b"/usr/bin/gcc", str(launcher.cwd).encode(), env, 0o022, False)


def test_a_launcher_that_is_gone_gives_its_slot_back(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache
) -> None:
    request = request_of(launcher)
    run = cache.begin(request, lambda: False)
    assert isinstance(run, Run)
    assert remote.ends == []
    cache.abandon(request, run)
    assert remote.ends == [False]


def test_a_fault_of_the_cache_gives_the_slot_back(
    launcher: FakeLauncher, remote: FullRemote, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(cache._local, "begin", fail)
        cache.begin(request_of(launcher), lambda: False)
    assert remote.ends == [False]
    with monkeypatch.context() as patch:
        patch.setattr("hpcc.cache.remote.local_slots.SlotRule.is_same", fail)
        cache.begin(request_of(launcher), lambda: False)
    assert remote.ends == [False, False]


_POLICY = EffectivePolicy("warn", "warn", is_tenants_fallback=False)


@pytest.mark.parametrize(
    ("wanted", "isolation", "fallback", "is_exact", "expected"),
    [
        ("exact", "local/none", "warn", True, "exact"),
        ("exact", "local/none", "quiet", True, "exact"),
        ("exact", "", "warn", True, "exact"),  # the routes tell
        ("exact", "local/none", "warn", False, "off"),
        ("exact", "local/none", "never", True, "off"),
        ("exact", "process/runc", "warn", True, "off"),
        ("exact", "qemu/tcg", "warn", True, "off"),
        ("any", "qemu/tcg", "warn", False, "any"),
        ("any", "local/none", "never", True, "off"),
        ("off", "local/none", "warn", True, "off"),
    ],
)
def test_what_setting_policy_and_farm_permit(
    wanted: LocalSlots, isolation: str, fallback: Fallback, is_exact: bool, expected: LocalSlots
) -> None:
    farm = dataclasses.replace(FARM, isolation=isolation)
    policy = _POLICY._replace(fallback=fallback)
    assert permitted(wanted, farm, policy, is_exact=is_exact) == expected
    engine = dataclasses.replace(farm, engine="grpcs://h")
    assert permitted(wanted, engine, policy, is_exact=is_exact) == "off"


def test_other_systems_have_no_local_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert permitted("any", FARM, _POLICY, is_exact=True) == "off"


_COMPARED = frozenset(
    {
        b"/usr/include/stdio.h",
        b"/usr/include/x86_64-linux-gnu/bits/types.h",
        b"/usr/include/x86_64-linux-gnu/sys/types.h",
        b"/usr/include/linux/limits.h",
        b"/usr/include/c++/14/string",
        b"/usr/include/c++/14/pstl/pstl_config.h",
        b"/usr/lib/gcc/x86_64-linux-gnu/14/include/stddef.h",
    }
)


@pytest.mark.parametrize(
    ("path", "is_compared"),
    [
        (b"/usr/include/stdio.h", True),
        (b"/usr/include/x86_64-linux-gnu/bits/stdio.h", True),
        (b"/usr/include/c++/14/vector", True),
        (b"/usr/lib/gcc/x86_64-linux-gnu/14/include/immintrin.h", True),
        (b"/usr/include/zlib.h", False),  # other packages install here, too
        (b"/usr/include/linux/fs.h", False),
        (b"/usr/include/x86_64-linux-gnu/sys/ioctl.h", False),
        (b"/usr/include/c++/14/experimental/any", False),
        (b"/usr/include/c++/14/pstl/glue_algorithm_defs.h", False),  # asks whether TBB is there
        (b"/usr/include/bits/stdio.h", False),
        (b"/home/me/project/a.h", False),
    ],
)
def test_which_headers_are_those_of_the_image(path: bytes, is_compared: bool) -> None:
    assert are_compared([b"/usr/include/stdio.h", path], _COMPARED) is is_compared
    assert not are_compared([path], frozenset())
