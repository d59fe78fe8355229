"""Records of compiles for `hpcc explain`, and the time that hits saved."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.manifest import make_set
from hpcc.cache.results.records import FILE_NAME, Records

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
    return Records(str(directory), cast("Any", results), cast("Any", counts)), counts


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
