"""A real small build through the launcher: what `builds`, `report` and `trace` tell about it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hpcc_testkit.cache.launcher import build_launcher, launcher_environment, stop_daemon
from hpcc_testkit.receivers.collector import collector
from hpcc_testkit.services.web import Fetched, web_pages

MAKEFILE = """
all: a.o b.o c.o t.o
%.o: %.c
\thpcc gcc -O1 -c -o $@ $<
odd:
\thpcc gcc -x c -c -o odd.o - < b.c
bad:
\t-hpcc gcc -c -o bad.o bad.c
"""
SOURCES = {
    "h.h": "int h(int);\n",
    "a.c": '#include "h.h"\nint a(void) { return h(1); }\n',
    "b.c": "int b(void) { return 2; }\n",
    "c.c": '#include "h.h"\nint c(void) { return h(3); }\n',
    "t.c": "const char *t = __TIME__;\n",
    "bad.c": "int bad(void) { return }\n",
}


def check_pages(env: dict[str, str]) -> None:
    """Follow the links of `hpcc web --local` from the builds to a miss and to a hit."""
    with web_pages(env) as link:
        client = Fetched(link)
        _, links = client.page(f"{client.root}/")
        second, first = [name for name in links if "/build/" in name]
        text, links = client.page(f"{second}/compiles?end=hit&q=a.c")
        assert "2 of 8" in text
        hit, _ = client.page(next(name for name in links if name.startswith(f"{second}/1")))
        assert "a hit: the result was in the cache" in hit
        _, links = client.page(f"{first}/compiles?q=t.c")
        miss, _ = client.page(next(name for name in links if name.startswith(f"{first}/1")))
        assert "not stored: date-time" in miss
        assert "compiled here and not stored" in miss
        assert client.ask(first, host="attacker.example")[0].status == 421


def test_hits_misses_a_bypass_and_a_failure_are_recorded_by_build(tmp_path: Path) -> None:
    launcher = build_launcher(tmp_path / "bin")
    env = launcher_environment(tmp_path / "hpcc")
    env["PATH"] = f"{launcher.parent}:{env['PATH']}"
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, text in {**SOURCES, "Makefile": MAKEFILE}.items():
        (tree / name).write_text(text)
    time.sleep(2.1)  # so old that no file counts as changing

    def make(build: str, *goals: str) -> None:
        subprocess.run(
            ["make", "-j2", *goals], cwd=tree, env={**env, "HPCC_BUILD": build}, check=True,
            capture_output=True, timeout=60,
        )  # fmt: skip

    def hpcc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hpcc.cli", *words], cwd=tree, env=env, check=False,
            capture_output=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def report(name: str) -> dict[str, Any]:
        return json.loads(hpcc("report", name, "--json"))  # type: ignore[no-any-return]  # JSON

    try:
        hpcc("start")  # a launcher does not wait long for a daemon on a busy machine
        make("first", "all", "odd", "bad")
        for _ in range(2):  # of the second the hits are replays
            for made in tree.glob("*.o"):
                made.unlink()
            make("second", "all")
        first, second = report("first"), report("second")
        assert first["counts"] == {"here": 3, "not-kept": 1, "failed": 1, "bypass": 1}
        causes = {(c["family"], c["reason"]): c["compiles"] for c in first["causes"]}
        assert causes[("uncacheable", "date-time")] == 1
        assert causes[("missed", "new-command")] == 3
        assert causes[("failed", "")] == 1
        assert sum(n for (family, _), n in causes.items() if family == "bypass") == 1
        assert second["counts"] == {"hit": 6, "not-kept": 2}
        assert (second["hits"], second["lookups"]) == (6, 8)
        assert second["hits_saved_seconds"] > 0
        assert 0 < second["busy_seconds"] <= second["took_seconds"]
        for slow in first["slowest"]:
            names = [name for name, _, _ in slow["phases"]]
            assert {"classify", "look-up", "compile", "store"} <= set(names)
            assert all(
                offset + took <= slow["seconds"] + 1e-6 for _, offset, took in slow["phases"]
            )
        listed = json.loads(hpcc("builds", "--json"))["builds"]
        assert [(b["build"], b["compiles"]) for b in listed] == [("first", 6), ("second", 8)]

        page, trace = tmp_path / "report.html", tmp_path / "trace.json"
        hpcc("report", "first", "--html", str(page))
        assert page.read_text().startswith("<!doctype html>")
        hpcc("trace", "first", "-o", str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
        compiles = [e for e in events if "outcome" in e.get("args", {})]
        assert len(compiles) == 6
        assert {"a.c", "b.c", "c.c", "t.c", "bad.c"} <= {e["name"] for e in compiles}

        with collector() as server:
            hpcc("trace", "first", "--otlp", f"http://127.0.0.1:{server.port}")
            (request,) = server.requests(1)
        spans = request.spans()[("hpcc-client", "")]
        assert [span.name for span in spans].count("compile") == 6
        assert str(tree).encode() not in request.body
        assert b"bad.c" not in request.body

        check_pages(env)

        # A daemon that ends has written all of it, and the next one goes on.
        stop_daemon(env)
        (tree / "a.o").unlink()
        hpcc("start")
        make("second", "all")
        assert report("second")["compiles"] == 8 + 1
    finally:
        stop_daemon(env)
