"""An evidence file about a library: what it proves, and what it never counts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.evidence.forms.container import pack_files, unpack_files
from hpcc.evidence.forms.dsse import seal_statement
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import PinnedKeys, key_id_of
from hpcc.evidence.making import LinkClaim, read_subject
from hpcc.evidence.model import FilePart, PartSource, policy_of
from hpcc.evidence.verify import verify_evidence
from hpcc_testkit.evidence.made import (
    MAKER,
    MadeEvidence,
    digest_of,
    guest_row,
    library,
    made_evidence,
    pinned,
    raw,
    trail_of,
)
from hpcc_testkit.farm.audit_rows import KEY

OBJECTS = {f"object-with-a-long-name-{n}.o": b"object %d\n" % n for n in range(5)}
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    path = tmp_path / "libm.a"
    path.write_bytes(library(OBJECTS))
    return path


def rows(**changes: object) -> list[dict[str, object]]:
    return [
        guest_row(number, {f"out/{name}": data}, **changes)
        for number, (name, data) in enumerate(OBJECTS.items())
    ]


async def evidence_of(lib: Path, trail: list[dict[str, object]]) -> MadeEvidence:
    return made_evidence(lib, [await trail_of(lib.parent / "trail", trail)])


def counts(made: MadeEvidence, lib: Path) -> dict[str, int]:
    found = verify_evidence(made.data, read_subject(lib), pinned())
    return {source.value: n for source, n in found.coverage.counts.items()}


async def test_a_library_whose_objects_all_came_from_guests_is_proved(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    found = verify_evidence(made.data, read_subject(lib), pinned())
    assert found.coverage.is_proved
    assert found.coverage.guests == {"qemu/tcg, reuse principal": 5}
    assert not found.workers_pinned
    assert found.signatures == 5 * 2 + 1 + 2
    assert found.makers_heads == ("w1",)


def test_members_are_those_that_ar_shows(lib: Path) -> None:
    listed = subprocess.run(["ar", "t", lib], capture_output=True, text=True, check=True)
    members = read_subject(lib).members
    assert members is not None
    assert listed.stdout.split() == [part.name for part in members] == list(OBJECTS)
    for part in members:
        body = subprocess.run(["ar", "p", lib, part.name], capture_output=True, check=True)
        assert digest_of(body.stdout).startswith(part.digest)


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({"cache_status": "hit"}, PartSource.SERVED),
        ({"cache_status": "joined"}, PartSource.SERVED),
        ({"cache_status": "pack"}, PartSource.SERVED),
        ({"isolation": "process/runc"}, PartSource.SERVED),
        ({"isolation": "local/none"}, PartSource.SERVED),
        ({"isolation": "foreign/unknown"}, PartSource.SERVED),
        ({"cache_status": "abandoned"}, PartSource.UNKNOWN),
        ({"cache_status": "explain"}, PartSource.UNKNOWN),
        ({"exit_code": 1}, PartSource.UNKNOWN),
        ({"guest_id": ""}, PartSource.UNKNOWN),
        ({"worker": "w2"}, PartSource.UNKNOWN),
    ],
)
async def test_only_an_execution_in_an_accepted_guest_counts(
    lib: Path, changes: dict[str, object], source: PartSource
) -> None:
    made = await evidence_of(lib, rows(**changes))
    assert counts(made, lib) == {source.value: 5}
    assert not made.evidence.coverage().is_proved


async def test_one_object_without_a_row_makes_the_answer_no(lib: Path) -> None:
    made = await evidence_of(lib, rows()[:-1])
    found = verify_evidence(made.data, read_subject(lib), pinned())
    assert not found.coverage.is_proved
    last = list(OBJECTS)[-1]
    assert [(p.name, s) for p, s in found.coverage.unproved] == [(last, PartSource.UNKNOWN)]


async def test_a_reader_may_demand_another_isolation(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    strict = policy_of(["firecracker/kvm"])
    found = verify_evidence(made.data, read_subject(lib), pinned(), strict)
    assert found.coverage.counts == {PartSource.SERVED: 5}
    assert not found.coverage.is_proved


async def test_an_execution_is_preferred_to_a_hit(lib: Path) -> None:
    made = await evidence_of(lib, [*rows(cache_status="hit"), *rows(), *rows(cache_status="hit")])
    assert counts(made, lib) == {"guest": 5}
    assert len(made.evidence.rows) == 5


async def test_keys_of_workers_may_be_pinned(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    good = PinnedKeys((raw(MAKER),), {"w1": raw(KEY)})
    assert verify_evidence(made.data, read_subject(lib), good).workers_pinned
    for workers in ({"w1": raw(OTHER)}, {"w2": raw(KEY)}):
        with pytest.raises(EvidenceDamagedError, match="worker w1 is not a pinned one"):
            verify_evidence(made.data, read_subject(lib), PinnedKeys((raw(MAKER),), workers))


async def test_evidence_of_another_maker_is_refused(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    with pytest.raises(EvidenceDamagedError, match="not signed by a pinned key"):
        verify_evidence(made.data, read_subject(lib), pinned(OTHER))


async def test_another_library_is_refused(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    other = saved(lib.with_name("other.a"), library({**OBJECTS, "more.o": b"more"}))
    with pytest.raises(EvidenceDamagedError, match="another file"):
        verify_evidence(made.data, read_subject(other), pinned())


@pytest.mark.parametrize("name", sorted(["link.dsse.json", "objects.intoto.jsonl", "vsa.dsse.json",
    "records.dsse.jsonl", "rows.proofs.jsonl", "README.txt", "keys.txt", "maker.pem",
    "sbom.cdx.json", "worker.w1.checkpoint", "worker.w1.pem"]))  # fmt: skip
async def test_each_file_is_needed_and_compared(lib: Path, name: str) -> None:
    made = await evidence_of(lib, rows())
    assert name in made.files
    without = {n: data for n, data in made.files.items() if n != name}
    with pytest.raises(EvidenceDamagedError):
        verify_evidence(pack_files(without), read_subject(lib), pinned())
    with pytest.raises(EvidenceDamagedError):
        verify_evidence(
            pack_files({**made.files, name: made.files[name] + b"\n"}), read_subject(lib), pinned()
        )


async def test_an_added_file_is_found(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    more = pack_files({**made.files, "more.txt": b"believe me"})
    with pytest.raises(EvidenceDamagedError, match=r"more\.txt of the evidence was added"):
        verify_evidence(more, read_subject(lib), pinned())


async def test_a_link_is_a_claim_and_its_libraries_count_with_all_members(
    lib: Path, tmp_path: Path
) -> None:
    program, main = saved(tmp_path / "app", b"\x7fELF program"), b"main"
    trail = await trail_of(tmp_path / "trail", [*rows(), guest_row(9, {"main.o": main})])
    claim = LinkClaim(
        output=str(program),
        digest=read_subject(program).digest,
        inputs=(
            ("/usr/lib/crt1.o", digest_of(b"crt1").partition("/")[0]),
            (str(tmp_path / "main.o"), digest_of(main).partition("/")[0]),
            (str(lib), read_subject(lib).digest),
            ("/tmp/cc1.ltrans0.o", "gone"),
        ),
        left_out=0,
        command=("gcc", "main.o", "-lm", "-o", "app\udc80"),
        facts={"build": "ci/1", "startedOn": "2026-11-30T12:00:00Z"},
    )
    crt = {"/usr/lib/crt1.o": "pkg:deb/debian/libc6-dev@2.41-1?arch=amd64"}
    made = made_evidence(program, [trail], links=[claim], packages=crt)
    found = verify_evidence(made.data, read_subject(program), pinned())
    assert found.coverage.counts == {PartSource.HOST: 1, PartSource.GUEST: 6, PartSource.UNKNOWN: 1}
    assert [part.note for part, _ in found.coverage.unproved] == ["no digest: gone"]
    assert f"{lib}(object-with-a-long-name-0.o)" in {p.name for p in found.evidence.making.parts}
    saved(lib, library({"other.o": b"other"}))
    after = made_evidence(program, [trail], links=[claim], packages=crt).evidence
    assert FilePart(
        str(lib), claim.inputs[2][1], note="the library was changed after the link"
    ) in (after.making.parts)


@pytest.mark.parametrize(
    ("argv", "source"),
    [
        (("gcc", "-flto", "-c", "main.c"), PartSource.LTO),
        (("clang", "-fno-lto", "-flto=thin", "-c", "main.c"), PartSource.LTO),
        (("clang", "-emit-llvm", "-fno-lto", "-c", "main.c"), PartSource.LTO),
        (("gcc", "-flto=auto", "-fno-lto", "-c", "main.c"), PartSource.GUEST),
        (("gcc", "-c", "-flto.c"), PartSource.GUEST),
    ],
)
async def test_what_a_link_compiles_once_more_is_not_of_a_guest(
    tmp_path: Path, argv: tuple[str, ...], source: PartSource
) -> None:
    """lld compiles bitcode in its own process: no list of files shows that."""
    program, main = saved(tmp_path / "app", b"\x7fELF program"), saved(tmp_path / "m.o", b"main")
    trail = await trail_of(tmp_path / "trail", [guest_row(1, {"m.o": b"main"}, argv=argv)])
    claim = LinkClaim(
        output=str(program), digest=read_subject(program).digest,
        inputs=((str(main), read_subject(main).digest),), left_out=0,
        command=("clang", "m.o", "-o", "app"), facts={},
    )  # fmt: skip
    made = made_evidence(program, [trail], links=[claim])
    found = verify_evidence(made.data, read_subject(program), pinned())
    assert found.coverage.counts == {source: 1}
    assert found.coverage.is_proved == (source is PartSource.GUEST)
    # The object alone came out of the guest, whatever a link makes of it.
    alone = made_evidence(main, [trail])
    assert verify_evidence(alone.data, read_subject(main), pinned()).coverage.is_proved


async def test_a_large_summary_is_not_even_decoded(lib: Path) -> None:
    made = await evidence_of(lib, rows())
    large = seal_statement(b" " * (1 << 20), key_id_of(raw(OTHER)), OTHER.sign)
    bomb = pack_files({**made.files, "vsa.dsse.json": large})
    with pytest.raises(EvidenceDamagedError, match="summary is larger than any"):
        verify_evidence(bomb, read_subject(lib), pinned())


async def test_every_text_is_json_that_other_readers_accept(lib: Path) -> None:
    made = await evidence_of(lib, rows(principal="a\udc80b", argv=("gcc", "\ud800")))
    for name, data in unpack_files(made.data).items():
        if name.endswith((".json", ".jsonl")) and name != "records.dsse.jsonl":
            for line in data.splitlines():
                assert json.loads(line)
                json.dumps(json.loads(line), ensure_ascii=False).encode()
    assert counts(made, lib) == {"guest": 5}
