"""Records of compiles for `hpcc explain`, and the time that hits saved."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.manifest import make_set
from hpcc.cache.base.times import CompileTimes, Phase
from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.reading import find_build, list_builds
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cache.results.records import FILE_NAME, RECORDS_NAME, Records
from hpcc.cache.results.records_read import read_records
from hpcc.cache.root.build_identity import Builds

REQUEST = CompileRequest(
    argv=(b"gcc", b"-c", b"a.c"), compiler=b"/usr/bin/gcc", cwd=b"/p", env={}, umask=0o22,
    stderr_is_tty=False,
)  # fmt: skip
PREPARED = cast(
    "Any",
    SimpleNamespace(
        request=REQUEST,
        invocation=SimpleNamespace(arguments=(b"-c", b"a.c")),
        colour=(),
        output=b"/p/a.o",
        source=b"/p/a.c",
        share=None,
        identity=SimpleNamespace(digest=b"i" * 32),
    ),
)
KEY = b"k" * 32


class Counts:
    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        self.found[name] = self.found.get(name, 0) + count


def records_in(directory: Path) -> tuple[Records, Counts]:
    inputs = make_set(KEY, ((b"/p/a.c", b"d" * 32),), (), ())
    results = SimpleNamespace(latest=lambda _: inputs)
    counts = Counts()
    builds = Builds(counts.add, time.monotonic, lambda cwd: cwd)
    recorder = Recorder(str(directory.parent / DIRECTORY_NAME), time.time)
    made = cast("Any", results), cast("Any", counts), builds, recorder
    return Records(str(directory), *made), counts


def lines_in(directory: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (directory / FILE_NAME).read_text().splitlines()]


def missed(records: Records, milliseconds: int) -> None:
    started_ns = time.time_ns() - milliseconds * 1_000_000
    records.compiled(PREPARED, "miss.local", key=KEY, started_ns=started_ns)


def test_a_hit_saves_what_the_result_took_also_after_a_restart(tmp_path: Path) -> None:
    records, counts = records_in(tmp_path)
    missed(records, 5_000)
    records.hit(PREPARED, KEY)
    records.flush()
    saved = counts.found["saved.milliseconds"]
    assert saved >= 5_000
    (cost,) = [line[3]["ms"] for line in lines_in(tmp_path) if line[0] == "c"]
    assert saved == cost
    later, counts = records_in(tmp_path)
    later.hit(PREPARED, KEY)
    later.flush()
    assert counts.found["saved.milliseconds"] == cost


def test_a_file_and_a_compile_are_written_once_and_a_hit_is_short(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path)
    missed(records, 10)
    records.hit(PREPARED, KEY)
    records.hit(PREPARED, KEY)
    records.flush()
    file, compiled, one, two = lines_in(tmp_path)
    assert (file[0], file[3:]) == ("f", ["/p/a.c", (b"d" * 32).hex()])
    assert (compiled[0], compiled[3]["files"], compiled[3]["scope"]) == ("c", [0], file[1])
    assert [one[:2], two[:2]] == [["h", compiled[1]]] * 2
    # Numbers and ids are of one writer and one file: another writer begins anew.
    later, _ = records_in(tmp_path)
    later.hit(PREPARED, KEY)
    later.flush()
    *_, again, hit = lines_in(tmp_path)
    assert (again[0], hit[0]) == ("f", "c")
    assert again[1] != file[1]


def test_a_miss_is_counted_by_its_reason_as_a_report_counts_it(tmp_path: Path) -> None:
    records, counts = records_in(tmp_path)
    for outcome in (
        "miss.local", "miss.remote.executed", "miss.engine.executed", "miss.remote.cached",
        "miss.failed", "uncacheable",
    ):  # fmt: skip
        records.compiled(PREPARED, outcome, key=KEY, started_ns=time.time_ns(), reason="evicted")
    assert counts.found == {"missed.evicted": 3}


def test_a_failed_compile_has_no_inputs_of_an_earlier_one(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path)
    for outcome in ("miss.failed", "uncacheable"):
        records.compiled(PREPARED, outcome, key=KEY, started_ns=time.time_ns())
    records.flush()
    assert [(x[0], x[3]["result"], "files" in x[3]) for x in lines_in(tmp_path)] == [
        ("c", "", False)
    ] * 2


def test_a_fallbacks_reason_is_of_one_compile(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path)
    records.fell_back("farm-away")
    records.hit(PREPARED, KEY)
    records.hit(PREPARED, KEY)
    records.flush()
    found = [line[3].get("fallback") if line[0] == "c" else "" for line in lines_in(tmp_path)[1:]]
    assert found == ["farm-away", ""]


def test_a_record_names_its_build_and_a_hit_of_another_build_names_that(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path / RECORDS_NAME)
    prepared = SimpleNamespace(**{**vars(PREPARED), "request": REQUEST._replace(build="one")})
    prepared = cast("Any", prepared)
    records.compiled(prepared, "miss.local", key=KEY, started_ns=time.time_ns())
    records.hit(prepared, KEY)
    records.hit(prepared, KEY, build="two")
    records.hit(prepared, KEY, build="one")
    records.hit(prepared, KEY, build="")
    records.flush()
    assert [r.build for r in read_records(str(tmp_path))] == ["one", "one", "two", "one", ""]
    lengths = [len(x) for x in lines_in(tmp_path / RECORDS_NAME) if x[0] == "h"]
    assert lengths == [3, 4, 3, 4]


def test_lines_of_an_older_version_have_no_build_and_odd_ones_are_skipped(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path / RECORDS_NAME)
    missed(records, 10)
    records.flush()
    file = tmp_path / RECORDS_NAME / FILE_NAME
    (compiled,) = [line for line in lines_in(file.parent) if line[0] == "c"]
    lines = [
        ["h", compiled[1], 7.0],
        ["h", compiled[1], 8.0, ["x"]],
        ["h", compiled[1], 9.0, "b", 1],
    ]
    with file.open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    assert [(r.at, r.build) for r in read_records(str(tmp_path))][1:] == [(7.0, ""), (8.0, "")]


def test_notes_are_recorded_by_build_with_their_times(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path / RECORDS_NAME)
    times = CompileTimes()
    request = REQUEST._replace(build="one", times=times)
    prepared = cast("Any", SimpleNamespace(**{**vars(PREPARED), "request": request}))
    times.begin(Phase.COMPILE)
    started_ns = time.time_ns() - 3_000_000_000
    records.compiled(prepared, "miss.local", key=KEY, started_ns=started_ns, reason="evicted",
                     fallback="guest-lost", size_bytes=99)  # fmt: skip
    records.hit(prepared, KEY)
    for number in range(3):  # replayed: their request is an older one
        records.hit(prepared, KEY, "hit.local", "two", "", 99, 1000.0 + number, 0.25)
    records.bypass(request, "stdin")
    records.ended(request, "miss.abandoned")
    records.ended(REQUEST, "bypass", "of no build")
    records.flush()
    one = find_build(str(tmp_path), "one").compiles
    assert [(c.outcome, c.reason, c.fallback) for c in sorted(one, key=lambda c: c.outcome)] == [
        ("bypass", "stdin", ""), ("hit.local", "", ""), ("miss.abandoned", "", ""),
        ("miss.local", "evicted", "guest-lost"),
    ]  # fmt: skip
    miss = next(c for c in one if c.outcome == "miss.local")
    assert (miss.source, miss.output, miss.size_bytes) == ("/p/a.c", "/p/a.o", 99)
    ((phase, offset, took),) = miss.phases
    assert (phase, offset + took) == (Phase.COMPILE, miss.took_us)
    two = find_build(str(tmp_path), "two").compiles
    assert [(c.ended_us, c.took_us, c.phases) for c in two] == [
        (1_000_000_000 + n * 1_000_000, 250_000, ()) for n in range(3)
    ]
    assert all(c.saved_us >= 3_000_000 for c in two)
    assert [line.build for line in list_builds(str(tmp_path))] == ["two", "one"]
    # The compile that was given up is not the last one of its output.
    assert [r.outcome for r in read_records(str(tmp_path))].count("miss.abandoned") == 0


def test_a_link_of_many_objects_is_recorded_by_its_output_alone(tmp_path: Path) -> None:
    records, _ = records_in(tmp_path / RECORDS_NAME)
    objects = tuple(b"%d.o" % n for n in range(40))
    for argv in ((*objects, b"-o", b"prog"), objects, (b"-c", b"a.c", b"-o", b"a.o", b"-M")):
        request = REQUEST._replace(argv=(b"gcc", *argv), build="one")
        records.bypass(request, "link")
    records.flush()
    one = find_build(str(tmp_path), "one").compiles
    assert sorted((c.source, c.output) for c in one) == [
        ("", "/p/prog"), ("/p/0.o", ""), ("/p/a.c", "/p/a.o"),
    ]  # fmt: skip
