from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.results.records_read import CompileRecord, read_records
from hpcc.cli.cache.explain import changes_between, explain_lines
from hpcc.cli.cache.stats import stats_lines
from hpcc.cli.main import build_parser, main
from hpcc.config.settings import setting_origins
from hpcc.core import CallerError
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.reason import Reason
from hpcc.store.private import PrivateStore

RECORD = CompileRecord(
    at=1000.0, outcome="miss.local", reason="new-command", fallback="", output="/p/a.o",
    sources=("/p/a.c",), argv=("gcc", "-c", "a.c"), cwd="/p", compiler="/usr/bin/gcc",
    identity="11" * 32, image="", key="22" * 32, result="33" * 32, duration_ms=40,
    env={"LANG": "C"}, files={"/p/a.h": "aa" * 32},
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    (tmp_path / "cache/explain").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    return tmp_path


def test_what_changed_is_named_with_both_values() -> None:
    now = replace(
        RECORD, argv=("gcc", "-O2", "-c", "a.c"), env={"LANG": "de"}, identity="44" * 32,
        files={"/p/a.h": "bb" * 32, "/p/b.h": "cc" * 32}, cwd="/q",
    )  # fmt: skip
    text = "\n".join(changes_between(RECORD, now))
    assert "flags: was (none), now -O2" in text
    assert "variable LANG: was 'C', now 'de'" in text
    assert f"content of /p/a.h: was {'aa' * 8}, now {'bb' * 8}" in text
    assert "now reads /p/b.h" in text
    assert f"was {'11' * 8}, now {'44' * 8}" in text
    assert "directory: was /p, now /q" in text
    assert changes_between(RECORD, RECORD) == []


def test_a_first_compile_has_nothing_to_be_compared_with() -> None:
    text = "\n".join(explain_lines([RECORD]))
    assert "this command has no result yet" in text
    assert "no record of an earlier compile" in text


@pytest.mark.parametrize("reason", [*FallbackReason, *PrivateReason], ids=lambda r: r.anchor_id)
def test_a_result_that_went_nowhere_has_its_text_and_a_remedy(reason: Reason) -> None:
    if isinstance(reason, FallbackReason):
        title, record = "not on farm", replace(RECORD, fallback=reason.value)
    else:
        title, record = "not shared ", replace(RECORD, private=reason.value)
    lines = explain_lines([record])
    at = lines.index(f"  {title}   {reason}: {reason.text}")
    assert lines[at + 1 : at + 3] == [
        f"  remedy        {reason.remedy}",
        f"  more          {reason.anchor}",
    ]


def test_the_file_behind_a_fallback_is_named_and_a_farms_own_word_is_shown() -> None:
    lines = explain_lines([replace(RECORD, fallback="hidden-input: /p/.secret.h")])
    assert "  not on farm   hidden-input: /p/.secret.h" in lines
    assert f"  remedy        {FallbackReason.HIDDEN_INPUT.remedy}" in lines
    lines = explain_lines([replace(RECORD, fallback="idp-token-audience")])
    assert "  not on farm   idp-token-audience" in lines
    assert not any("remedy" in line for line in lines)


REFUSED = replace(
    RECORD, outcome="uncacheable", reason="has-include", culprit="/p/gtest-port.h:284: #define HAS"
)


def test_a_refusal_is_explained_with_line_and_remedy() -> None:
    text = "\n".join(explain_lines([RECORD, REFUSED]))
    assert "because       has-include: a macro with arguments decides" in text
    assert "found at      /p/gtest-port.h:284: #define HAS" in text
    assert "remedy        Write the file's name literally." in text
    assert "docs/reasons.md#uncacheable-has-include" in text
    assert "no result yet" not in text


def test_a_bypass_is_explained_with_the_flag() -> None:
    argv = ("gcc", "-c", "a.c", "-fplugin=x")
    record = replace(RECORD, outcome="bypass", reason="plugin", argv=argv)
    text = "\n".join(explain_lines([record]))
    assert "found at      -fplugin=x" in text
    assert "remedy        Leave the option out" in text


def test_a_bypass_without_a_single_cause_is_explained_with_its_command() -> None:
    argv = ("gfortran", "-c", "a.f90")
    record = replace(
        RECORD, outcome="bypass", reason="other-compiler", argv=argv, compiler="/usr/bin/gfortran"
    )
    assert "  found at      gfortran -c a.f90" in explain_lines([record])


def test_stats_show_the_last_place_and_the_remedy_of_a_refusal() -> None:
    counts = {"uncacheable.has-include": 2, "bypass.plugin": 1, "bypass.of-the-future": 1}
    lines = stats_lines(counts, 1, {"uncacheable.has-include": REFUSED})
    at = next(
        i
        for i, line in enumerate(lines)
        if "2  has-include: a macro with arguments decides" in line
    )
    assert lines[at + 1].strip() == "last: /p/gtest-port.h:284: #define HAS"
    assert lines[at + 2].strip() == "Write the file's name literally."
    at = next(i for i, line in enumerate(lines) if "1  plugin: a plug-in" in line)
    assert lines[at + 1].strip().startswith("Leave the option out")
    assert "         1  of-the-future" in lines


def test_damaged_records_are_skipped(home: Path) -> None:
    table = {"outcome": "miss.local", "output": "/p/a.o", "scope": "1.0", "files": [0, 7, "x"]}
    lines = [["f", "1.0", 0, "/p/a.h", "aa"], ["c", "id", 5, table], ["h", "id", 6], ["h", "no", 7]]
    # No calendar has these times.
    lines += [["c", "id", at, table] for at in (10**400, float("nan"), 1e300, -1)]
    text = "\n".join(["nonsense", "[1]", "[]", '["c", "x", 1, 2]', *map(json.dumps, lines), '["c'])
    (home / "cache/explain/records.jsonl").write_text(text)
    first, second = read_records(str(home / "cache"))
    assert first.files == {"/p/a.h": "aa"}
    assert (first.outcome, second.outcome) == ("miss.local", "hit.local")


def test_a_hostile_name_in_a_checkout_does_not_control_the_terminal(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"outcome": "miss.local", "output": "/p/a\x1b[2J.o", "sources": ["/p/a.c"]}
    (home / "cache/explain/records.jsonl").write_text(json.dumps(["c", "id", 5, table]))
    assert main(["explain", "/p/a.c"]) == 0
    answer = capsys.readouterr().out
    assert r"/p/a\x1b[2J.o" in answer
    assert "\x1b" not in answer


def test_explain_of_an_unknown_file_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nowhere.c"]) == 1
    assert "no record of a compile" in capsys.readouterr().err
    assert main(["inspect", "zzz"]) == 1


def test_config_show_says_where_each_value_comes_from(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "config/hpcc.toml"
    file.write_text('# mine\nremote.fallback = "quiet"\n[cache] # small\nmax_size_bytes = 1_000\n')
    origins = {name: (value, origin) for name, value, origin in setting_origins(file)}
    assert origins["cache.max_size_bytes"] == ("1000", f"{file}:4")
    assert origins["remote.fallback"] == ('"quiet"', f"{file}:2")
    assert origins["worker.vcpus"] == ("2", "default")
    assert main(["config", "show"]) == 0
    assert "variable HPCC_DIR" in capsys.readouterr().out
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(file)


def test_config_show_refuses_an_unknown_key(home: Path) -> None:
    (home / "config/hpcc.toml").write_text("[cache]\nmax_sise_bytes = 1\n")
    with pytest.raises(CallerError, match="max_size_bytes"):
        setting_origins(home / "config/hpcc.toml")
    assert main(["config", "show"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("explain", "inspect", "--max-age", "build-debian"):
        assert word in text
    assert "supervise" not in text


def test_bash_completes_a_nested_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    probe = 'COMP_WORDS=(hpcc config s); COMP_CWORD=2; _hpcc; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{probe}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "show"


def test_clean_by_age_keeps_what_was_used(home: Path) -> None:
    store = PrivateStore(
        str(home / "cache/private"), max_size_bytes=1 << 20, max_entry_bytes=1 << 20, now=time.time
    )
    for number in range(2):
        store.put(bytes([number]) * 32, b"x")
    old = time.time() - 10 * 86_400
    os.utime(home / "cache/private/00" / ("00" * 31), (old, old))
    assert main(["clean", "--max-age", "9.5"]) == 0
    store.rescan()
    assert store.has(b"\1" * 32)
    assert not store.has(bytes(32))


@pytest.mark.parametrize(("text", "size"), [("1K", 1024), ("1.5GiB", 3 << 29), ("7", 7)])
def test_sizes_have_binary_units(text: str, size: int) -> None:
    assert build_parser().parse_args(["clean", "--max-size", text]).max_size == size


def test_stats_say_why_and_what_was_saved() -> None:
    counts = {
        "since": 1, "hit.local": 3, "miss.local": 1, "missed.inputs-changed": 1,
        "bypass.link": 2, "saved.milliseconds": 125_000, "front.requests": 6, "bytes.served": 2048,
    }  # fmt: skip
    text = "\n".join(stats_lines(counts, 1 << 30))
    assert "a source or header changed" in text
    assert "2 min 5 s" in text
    assert "2.0 KiB served" in text
    assert "requests" not in text


def test_stats_name_only_what_was_not_looked_up() -> None:
    # A replay is a hit, which is counted as one.
    counts = {"hit.local": 3, "front.requests": 3, "front.replayed": 2}
    assert "not even looked up" not in "\n".join(stats_lines(counts, 1))
    counts |= {"front.lost.launcher": 1, "front.exec.other-group": 4}
    text = "\n".join(stats_lines(counts, 1))
    assert f"4  exec.other-group: {BypassReason.OTHER_GROUP.text}\n" in text
    assert "1  lost.launcher: the launcher ended" in text
    assert "replayed" not in text
