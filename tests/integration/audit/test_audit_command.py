"""`hpcc audit` at the command line: filters, formats, limits, and the output of verify."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import row_of
from hpcc.audit.base.heads import head_text
from hpcc.cli.main import main
from hpcc_testkit.farm.audit_rows import SMALL, opened, refusal, row, written


@pytest.fixture
async def trail(tmp_path: Path) -> Path:
    """Write a trail with rows of two tenants and some refusals."""
    directory = tmp_path / "trail"
    async with opened(directory, limits=SMALL) as log:
        for number in range(12):
            tenant = "acme" if number % 2 else "globex"
            status = "hit" if number % 3 else "executed"
            await log.append(
                row(
                    number,
                    tenant=tenant,
                    cache_status=status,
                    started_at=1000.0 + number,
                    exit_code=number % 4,
                    image_digest=f"sha256:{number:02x}{'0' * 62}",
                    isolation="qemu/tcg" if number < 6 else "firecracker/kvm",
                )
            )
        await log.event(refusal(1, tenant="acme", peer="ipv4:192.0.2.7:1", request_id="ab12"))
        await log.event(refusal(2, name="foreign-image", tenant="globex"))
        (tmp_path / "anchors").write_bytes(head_text(log.signed_anchor()) + b"\n")
    return directory


def found(capsys: pytest.CaptureFixture[str], trail: Path, *args: str) -> list[dict[str, object]]:
    assert main(["audit", "query", "--directory", str(trail), "--format", "jsonl", *args]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_list_can_show_one_build_only(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "list", "--directory", str(trail), "--build"]
    assert main([*command, "build_id-2"]) == 0
    (header, line) = capsys.readouterr().out.splitlines()
    assert header.startswith("ROW")
    assert "row_id-2" in line
    assert main([*command, "build_id"]) == 0  # a whole identity, not the start of one
    assert "row_id" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "numbers"),
    [
        (["--tenant", "acme"], [11, 9, 7, 5, 3, 1]),
        (["--tenant", "acme", "--status", "executed"], [9, 3]),
        (["--principal", "principal-4"], [4]),
        (["--isolation", "qemu/tcg", "--tenant", "acme"], [5, 3, 1]),
        (["--image", "sha256:0a"], [10]),
        (["--action", "action_digest-1"], [11, 10, 1]),
        (["--worker", "w1", "--exit-code", "3"], [11, 7, 3]),
        (["--worker", "w2"], []),
        (["--build", "build_id-2"], [2]),
        (["--guest", "guest_id-3"], [3]),
        (["--reason", "reason-8"], [8]),
        (["--reuse", "reuse-8"], [8]),
        (["--since", "1970-01-01T00:16:50"], [11, 10]),
        (["--until", "1970-01-01T00:16:42"], [1, 0]),
        (["--image", "%"], []),
        (["--action", "action_digest_1"], []),
    ],
)
def test_a_query_gives_the_rows_that_match_all_filters(
    trail: Path, capsys: pytest.CaptureFixture[str], args: list[str], numbers: list[int]
) -> None:
    rows = found(capsys, trail, *args)
    assert [r["guest_execs_before"] for r in rows] == numbers


def test_events_are_found_by_name_tenant_peer_and_request(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, names in (
        (["--events"], ["foreign-image", "token-refused"]),
        (["--event", "foreign-image"], ["foreign-image"]),
        (["--events", "--tenant", "acme"], ["token-refused"]),
        (["--events", "--peer", "ipv4:192.0.2."], ["token-refused"]),
        (["--events", "--request", "ab12"], ["token-refused"]),
        (["--events", "--request", "ab"], []),
    ):
        assert [e["name"] for e in found(capsys, trail, *args)] == names
    assert main(["audit", "query", "--directory", str(trail), "--events"]) == 0
    shown = capsys.readouterr().out
    assert "ipv4:192.0.2.7:1" in shown
    assert "ab12" in shown


def test_output_is_bounded_and_says_that_there_is_more(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "query", "--directory", str(trail), "-n", "3"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert "and more" in err
    assert main(["audit", "query", "--directory", str(trail), "-n", "12"]) == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        main(["audit", "query", "--directory", str(trail), "-n", "0"])


def test_an_export_takes_the_same_filters_oldest_first(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--directory", str(trail), "--tenant", "acme"]
    assert main(["audit", "export", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(x)["guest_execs_before"] for x in lines] == [1, 3, 5, 7, 9, 11]
    assert main(["audit", "export", "--format", "tsv", *where]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_rows_go_to_parquet_and_come_back(
    trail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from arro3.io import read_parquet

    from hpcc.audit.base.query import Query
    from hpcc.audit.lookup.reader import TrailReader

    file = tmp_path / "rows.parquet"
    where = ["--directory", str(trail), "--format", "parquet"]
    assert main(["audit", "export", *where, "--output", str(file)]) == 0
    assert "12 rows" in capsys.readouterr().out
    table = read_parquet(file).read_all()
    index = TrailReader(trail)
    records = list(index.find(Query(), oldest_first=True))
    assert table["row_id"].to_pylist() == [row_of(r).row_id for r in records]
    assert table["argv"].to_pylist() == [list(row_of(r).argv) for r in records]
    assert table["outputs"].to_pylist() == [["ab/1 out/a.o"]] * 12
    assert table["hash"].to_pylist() == [r.hash for r in records]
    assert file.stat().st_mode & 0o077 == 0
    assert main(["audit", "export", *where]) == 2
    for bad in (str(tmp_path / "no/x"), "/", ""):
        assert main(["audit", "export", *where, "--output", bad]) == 2
    assert [p.name for p in tmp_path.glob(".rows*")] == []


def test_parquet_without_its_extra_says_what_to_do(
    trail: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "arro3.core", None)
    args = ["--directory", str(trail), "--format", "parquet", "--output", str(tmp_path / "x")]
    assert main(["audit", "export", *args]) == 2
    assert "hpcc[parquet]" in capsys.readouterr().err


def test_verify_says_what_it_compared_and_fails_on_a_cut_tail(
    trail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["audit", "verify", "--directory", str(trail)]
    assert main(where) == 0
    assert "a missing end is not detected" in capsys.readouterr().out
    anchors = ["--anchors", str(tmp_path / "anchors")]
    assert main([*where, *anchors]) == 0
    assert "1 anchors match, the newest of 14 records" in capsys.readouterr().out
    (trail / "spool.hpcc").unlink()
    assert main(where) == 0
    assert main([*where, *anchors]) != 0
    assert "the end is missing" in capsys.readouterr().err
    assert main([*where, *anchors, "--worker", "w9"]) == 2


def test_verify_names_the_file_that_is_damaged(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = trail / "spool.hpcc"
    data = bytearray(spool.read_bytes())
    # No JSON any more. Of another byte, the index would show first that it differs.
    data[data.index(b'{"body":', len(data) // 2)] ^= 1
    spool.write_bytes(data)
    assert main(["audit", "verify", "--directory", str(trail)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"hpcc: this trail is NOT intact: {spool}: ")


def test_reading_a_trail_changes_nothing_in_it(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def content() -> dict[str, tuple[bytes, int]]:
        return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in trail.iterdir()}

    before = content()
    for command in (["list"], ["query", "--tenant", "acme"], ["export"], ["verify"]):
        assert main(["audit", *command, "--directory", str(trail)]) == 0
        assert capsys.readouterr().out
    assert content() == before


def test_a_status_that_no_row_has_is_refused(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "query", "--directory", str(trail), "--status", "excuted"])
    assert "must be one of executed, hit, joined, abandoned" in capsys.readouterr().err


async def test_a_schedulers_events_are_read_from_its_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path / "events", worker="scheduler-1") as log:
        await log.event(refusal(1, name="login-refused"))
    where = ["--scheduler-state", str(tmp_path)]
    assert main(["audit", "list", *where]) == 0
    assert "login-refused" in capsys.readouterr().out
    assert main(["audit", "query", *where, "--event", "login-refused"]) == 0
    assert main(["audit", "verify", *where]) == 0
    await written(tmp_path / "other", 1)
    with pytest.raises(SystemExit):
        main(["audit", "list", *where, "--directory", str(tmp_path / "other")])
