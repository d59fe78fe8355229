"""Which inputs changed before a miss, from the lines of the records."""

from __future__ import annotations

import json
from pathlib import Path

from hpcc.cache.results.changed_inputs import changed_inputs
from hpcc.cache.results.records import FILE_NAME, RECORDS_NAME


def compiled(name: str, at: float, output: str, *numbers: int) -> list[object]:
    return ["c", name, at, {"output": output, "scope": "s", "files": list(numbers)}]


def test_each_miss_gets_what_differs_from_the_compile_before(tmp_path: Path) -> None:
    lines = [
        ["f", "s", 0, "/p/a.c", "00"], ["f", "s", 1, "/p/h.h", "11"],
        ["f", "s", 2, "/p/h.h", "22"], ["f", "s", 3, "/p/new.h", "33"],
        compiled("x", 1.0, "/p/a.o", 0, 1), compiled("other", 1.5, "/p/b.o", 1),
        compiled("y", 2.0, "/p/a.o", 0, 2), ["h", "x", 3.0], compiled("z", 4.001, "/p/a.o", 0, 1, 3),
        ["c", "odd", 1e300, {"output": "/p/a.o", "scope": "s", "files": [0]}], ["c", 5], [],
        ["c", "odd", 5.0, {"output": "/p/a.o", "scope": [], "files": {}}],
    ]  # fmt: skip
    (tmp_path / RECORDS_NAME).mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines) + "[[[\n"
    (tmp_path / RECORDS_NAME / FILE_NAME).write_text(text)
    wanted = {("/p/a.o", 2000), ("/p/a.o", 4000), ("/p/b.o", 1500), ("/p/a.o", 9000)}
    assert changed_inputs(str(tmp_path), wanted) == {
        ("/p/a.o", 2000): ("/p/h.h",), ("/p/a.o", 4000): ("/p/new.h",),
    }  # fmt: skip
    assert changed_inputs(str(tmp_path / "none"), wanted) == {}
