"""Which build a compile belongs to: the sources in their order, bad values, and guesses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hpcc.cache.root.build_identity import (
    MAX_IDENTITY_CHARS,
    MAX_ROOTS,
    PAUSE_SECONDS,
    Builds,
    FactReason,
    is_guessed,
    told_build,
)
from hpcc.cache.root.build_root import build_root
from hpcc.wire.build_facts import MAX_FACTS_BYTES, NAMES, decode_facts, encode_facts

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
GITHUB = {"GITHUB_REPOSITORY": "acme/app", "GITHUB_RUN_ID": "1658821493", "GITHUB_RUN_ATTEMPT": "2"}


def facts_of(values: Mapping[str, str | bytes]) -> bytes:
    return encode_facts(
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in values.items()
    )


def told(**values: str | bytes) -> tuple[str, tuple[FactReason, ...]]:
    return told_build(facts_of(values))


RUNS = {
    "github": (GITHUB, "github/acme/app/1658821493/2"),
    "github of a server without attempts": (
        {n: v for n, v in GITHUB.items() if n != "GITHUB_RUN_ATTEMPT"},
        "github/acme/app/1658821493",
    ),
    "gitlab": (
        {"CI_SERVER_HOST": "git.acme.example", "CI_PIPELINE_ID": "4711"},
        "gitlab/git.acme.example/4711",
    ),
    "gitlab without its host": ({"CI_PIPELINE_ID": "4711"}, "gitlab/4711"),
    "buildkite": ({"BUILDKITE_BUILD_ID": "4735ba57-80d0"}, "buildkite/4735ba57-80d0"),
    "azure": (
        {"SYSTEM_COLLECTIONID": "6c6f3423", "BUILD_BUILDID": "12"},
        "azure/6c6f3423/12",
    ),
    "circleci": ({"CIRCLE_WORKFLOW_ID": "a1b2"}, "circleci/a1b2"),
    "teamcity": (
        {
            "TEAMCITY_PROJECT_NAME": "App",
            "TEAMCITY_BUILDCONF_NAME": "Nightly build",
            "BUILD_NUMBER": "9",
        },
        "teamcity/App/Nightly build/9",
    ),
    "jenkins": ({"BUILD_TAG": "jenkins-app-main-153"}, "jenkins/app-main-153"),
}


@pytest.mark.parametrize("case", RUNS)
def test_each_ci_system_names_its_run(case: str) -> None:
    values, identity = RUNS[case]
    assert told(**values) == (identity, ())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"GITHUB_RUN_ID": "7"},
        {"GITHUB_REPOSITORY": "acme/app"},
        {"BUILD_NUMBER": "9"},
        {"BUILD_TAG": "v1.2.3"},
        {"CI_SERVER_HOST": "git.acme.example"},
        {"HPCC_BUILD": ""},
    ],
)
def test_variables_that_name_no_run_name_no_build(values: dict[str, str]) -> None:
    assert told(**values) == ("", ())


def test_the_first_source_wins() -> None:
    values = {"TRACEPARENT": TRACEPARENT, "HPCC_BUILD": "release-7", **GITHUB}
    assert told(**values) == (f"trace/{TRACE_ID}", ())
    del values["TRACEPARENT"]
    assert told(**values) == ("release-7", ())
    del values["HPCC_BUILD"]
    assert told(**values) == ("github/acme/app/1658821493/2", ())


@pytest.mark.parametrize(
    "value",
    [
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        TRACEPARENT + "-more",
        TRACEPARENT + "\n",
        "ff" + TRACEPARENT[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}",
        "x",
        b"\xff" * 55,
        f"cc-{TRACE_ID}-00f067aa0ba902b7-01-{'x' * 300}",
    ],
)
def test_a_malformed_traceparent_is_dropped_and_the_next_source_decides(value: str | bytes) -> None:
    assert told(TRACEPARENT=value, HPCC_BUILD="x") == ("x", (FactReason.TRACEPARENT,))
    assert told(TRACEPARENT=value) == ("", (FactReason.TRACEPARENT,))


def test_a_later_version_of_traceparent_may_have_more_fields() -> None:
    value = f"cc-{TRACE_ID}-00f067aa0ba902b7-01-what-the-future-will-be-like"
    assert told(TRACEPARENT=value) == (f"trace/{TRACE_ID}", ())


def test_compiles_of_one_trace_with_other_spans_are_one_build() -> None:
    other = f"00-{TRACE_ID}-{'1' * 16}-00"
    assert told(TRACEPARENT=other) == told(TRACEPARENT=TRACEPARENT)


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe",
        "a\tb",
        "a\nb",
        "\x1b[31mred",
        "a\u202eb",
        " front",
        "behind ",
        "x" * (MAX_IDENTITY_CHARS + 1),
        "x" * 5000,
        # Cut by the launcher in the middle of a character, and so still valid UTF-8.
        "é" * 5000,
    ],
)
def test_a_bad_name_is_dropped_and_the_ci_system_decides(value: str | bytes) -> None:
    assert told(HPCC_BUILD=value, **GITHUB) == (
        "github/acme/app/1658821493/2",
        (FactReason.NAME,),
    )


@pytest.mark.parametrize("value", ["x", "x" * MAX_IDENTITY_CHARS, "nightly build", "ビルド/7"])
def test_a_name_is_taken_as_it_is(value: str) -> None:
    assert told(HPCC_BUILD=value) == (value, ())


def test_a_bad_variable_of_a_ci_system_names_no_build() -> None:
    assert told(**{**GITHUB, "GITHUB_RUN_ID": "7\n8"}) == ("", (FactReason.RUN,))


def test_a_run_with_long_names_is_named_by_a_hash_that_tells_runs_apart() -> None:
    one, two = (
        told(**{**GITHUB, "GITHUB_REPOSITORY": "o" * 39 + "/" + "r" * 100, "GITHUB_RUN_ID": run})[0]
        for run in ("1", "2")
    )
    assert one.startswith("github/")
    assert len(one) <= MAX_IDENTITY_CHARS
    assert one != two


@pytest.mark.parametrize(
    "facts",
    [
        b"HPCC_BUILD=x",
        b"HPCC_BUILD\0",
        b"PATH=/bin\0",
        b"\0",
        b"=x\0",
        b"HPCC_BUILD=" + b"x" * 194 + b"\0",
        b"HPCC_BUILD=x\0" * (len(NAMES) + 1),
        bytes(MAX_FACTS_BYTES + 1),
        b"HPCC_BUILD=x\0" + b"y" * MAX_FACTS_BYTES,
    ],
)
def test_facts_that_no_launcher_sends_are_dropped_as_a_whole(facts: bytes) -> None:
    assert decode_facts(facts) is None
    assert told_build(facts) == ("", (FactReason.FORM,))


def test_of_two_variables_of_one_name_the_first_counts() -> None:
    assert told_build(b"HPCC_BUILD=one\0HPCC_BUILD=two\0") == ("one", ())


# ---- guesses ----


class World:
    """Builds with an injected clock; a working directory `/p/sub` has the root `/p`."""

    def __init__(self, root_of: Callable[[bytes], bytes] | None = None) -> None:
        self.now, self.counts, self.looked = 1000.0, Counter[str](), Counter[bytes]()
        numbers = itertools.count(1)
        self.builds = Builds(
            lambda name: self.counts.update([name]),
            lambda: self.now,
            root_of or self._root_of,
            lambda: f"guessed/{next(numbers)}",
        )

    def _root_of(self, cwd: bytes) -> bytes:
        self.looked[cwd] += 1
        return b"/" + cwd.split(b"/")[1]

    def compile(self, cwd: bytes = b"/p", seconds: float = 0.0, facts: bytes = b"") -> str:
        identity = self.builds.begin(facts, cwd)
        self.now += seconds
        self.builds.end(facts, cwd)
        return identity


def test_compiles_of_one_root_are_one_build_until_none_ran_for_30_seconds() -> None:
    world = World()
    assert world.compile(b"/p") == "guessed/1"
    world.now += PAUSE_SECONDS - 1
    assert world.compile(b"/p/sub") == "guessed/1"
    world.now += PAUSE_SECONDS - 1
    assert world.compile(b"/p") == "guessed/1"
    world.now += PAUSE_SECONDS
    assert world.compile(b"/p") == "guessed/2"


def test_two_roots_are_two_builds_at_the_same_time() -> None:
    world = World()
    assert [world.compile(cwd) for cwd in (b"/p", b"/q", b"/p/x", b"/q/x")] == [
        "guessed/1",
        "guessed/2",
        "guessed/1",
        "guessed/2",
    ]


def test_a_compile_that_runs_is_no_pause() -> None:
    world = World()
    world.builds.begin(b"", b"/p")
    world.now += 100
    assert world.compile(b"/p") == "guessed/1"
    world.now += 100
    world.builds.end(b"", b"/p")
    world.now += PAUSE_SECONDS - 1
    assert world.compile(b"/p") == "guessed/1"
    world.now += PAUSE_SECONDS
    assert world.compile(b"/p") == "guessed/2"


def test_replayed_hits_keep_a_build_together() -> None:
    world = World()
    world.compile()
    for _ in range(10):
        world.now += PAUSE_SECONDS / 2
        assert world.builds.hit(b"", b"/p") == "guessed/1"
    assert world.compile() == "guessed/1"
    world.now += PAUSE_SECONDS
    assert world.builds.hit(b"", b"/p") == "guessed/2"


def test_a_named_build_is_no_part_of_a_guess() -> None:
    world = World()
    world.compile()
    facts = facts_of({"HPCC_BUILD": "x"})
    for _ in range(3):
        world.now += PAUSE_SECONDS / 2
        assert world.compile(facts=facts) == "x"
    assert world.compile() == "guessed/2"


def test_dropped_facts_are_counted_once_for_each_compile() -> None:
    world = World()
    bad = facts_of({"TRACEPARENT": "x", "HPCC_BUILD": "\t"})
    for _ in range(3):
        assert is_guessed(world.compile(facts=bad))
    assert world.counts == {"build.bad-traceparent": 3, "build.bad-name": 3}


def test_the_memory_of_roots_is_bounded_and_an_evicted_compile_may_end() -> None:
    world = World()
    world.builds.begin(b"", b"/old")
    for number in range(MAX_ROOTS):
        world.compile(b"/%d" % number)
    world.builds.end(b"", b"/old")
    assert len(world.builds._roots) == MAX_ROOTS
    assert world.compile(b"/old") == f"guessed/{MAX_ROOTS + 2}"


def test_texts_and_directories_without_end_stay_bounded() -> None:
    world = World(root_of=lambda _: b"/p")
    for number in range(10_000):
        world.compile(b"/p/%d" % number, facts=facts_of({"HPCC_BUILD": f"b{number}"}))
        world.compile(b"/p/%d" % number)
    assert len(world.builds._told) <= 1024
    assert len(world.builds._found) <= 4096


def test_a_root_is_looked_for_again_only_after_a_while() -> None:
    world = World()
    for _ in range(5):
        world.compile(b"/p/sub")
    assert world.looked == {b"/p/sub": 1}
    world.now += PAUSE_SECONDS
    world.compile(b"/p/sub")
    assert world.looked == {b"/p/sub": 2}


def test_guesses_of_two_daemons_differ() -> None:
    one, two = (
        Builds(lambda _: None, lambda: 0.0, lambda cwd: cwd).begin(b"", b"/p") for _ in range(2)
    )
    assert is_guessed(one)
    assert is_guessed(two)
    assert one != two
    assert not is_guessed("release-7")


# ---- the root ----


def make(root: Path, *names: str) -> bytes:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    return bytes(root)


def test_the_root_of_a_build_is_a_markers_or_version_controls_or_build_datas(
    tmp_path: Path,
) -> None:
    home = bytes(tmp_path)
    plain = make(tmp_path / "plain", "sub")
    assert build_root(plain + b"/sub", home) == plain + b"/sub"
    clone = make(tmp_path / "clone", ".git", "build/sub")
    (tmp_path / "clone/build/CMakeCache.txt").write_text("")
    assert build_root(clone + b"/build/sub", home) == clone
    marked = make(tmp_path / "marked", "inner/.git", "inner/sub")
    (tmp_path / "marked/.hpcc").write_text("")
    assert build_root(marked + b"/inner/sub", home) == marked
    outside = make(tmp_path / "outside", "sub/deep")
    (tmp_path / "outside/CMakeCache.txt").write_text("")
    assert build_root(outside + b"/sub/deep", home) == outside


def test_the_home_directory_is_no_root(tmp_path: Path) -> None:
    home = make(tmp_path, ".git", "work")
    assert build_root(home + b"/work", home) == home + b"/work"


def test_a_directory_that_is_gone_is_its_own_root(tmp_path: Path) -> None:
    gone = bytes(tmp_path / "gone")
    assert build_root(gone, bytes(tmp_path)) == gone
