"""The parts of tools/release that need no build: lock file, bill of materials, envelopes, sums."""

from __future__ import annotations

import base64
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

# Behind PYTHONPATH, where a mutation row puts another copy.
sys.path.append(str(Path(__file__).resolve().parents[3] / "tools"))

from release import audit, bom, dsse, licences, make, statements, verify
from release.dsse import RefusedError
from release.lock import read_lock

ROOT = Path(__file__).resolve().parents[3]

LOCK = f"""# written by a tool
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via cryptography
cryptography==50.0.2 \\
    --hash=sha256:{"c" * 64}
    # via
    #   hpcc (pyproject.toml)
    #   pyjwt
pyjwt==2.15.1 \\
    --hash=sha256:{"d" * 64}
    # via hpcc (pyproject.toml)
"""
ROWS = licences.read_rows(
    "# head\ncffi\t2.1.1\tMIT-0\tmetadata\n"
    "cryptography\t50.0.2\tApache-2.0 OR BSD-3-Clause\tmetadata\npyjwt\t2.15.1\tMIT\tmetadata\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def document(lock: str = LOCK, epoch: int = 1_800_000_000) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(bom.document("1.0", read_lock(lock), ROWS, epoch))
    return made


def test_a_component_has_the_version_licence_digests_and_marker_of_its_pin() -> None:
    first = document()["components"][0]
    assert (first["purl"], first["version"]) == ("pkg:pypi/cffi@2.1.1", "2.1.1")
    assert first["licenses"] == [{"license": {"id": "MIT-0"}}]
    marker = "platform_python_implementation != 'PyPy'"
    assert {p["value"] for p in first["properties"]} == {"a" * 64, "b" * 64, marker}


def test_dependencies_are_those_that_the_lock_file_gives_as_reasons() -> None:
    needs = {d["ref"]: d.get("dependsOn", []) for d in document()["dependencies"]}
    assert needs == {
        "pkg:pypi/hpcc@1.0": ["pkg:pypi/cryptography@50.0.2", "pkg:pypi/pyjwt@2.15.1"],
        "pkg:pypi/pyjwt@2.15.1": ["pkg:pypi/cryptography@50.0.2"],
        "pkg:pypi/cryptography@50.0.2": ["pkg:pypi/cffi@2.1.1"],
        "pkg:pypi/cffi@2.1.1": [],
    }


def test_the_same_input_gives_the_same_document_and_another_gives_another_serial() -> None:
    assert document() == document()
    other = document(epoch=1_800_000_001)
    assert other["serialNumber"] != document()["serialNumber"]
    assert other["metadata"]["timestamp"] == "2027-01-15T08:00:01+00:00"


def test_a_document_that_breaks_the_schema_of_cyclonedx_is_refused() -> None:
    good = document()
    bom.validate(json.dumps(good))
    good["components"][0]["type"] = "no type of CycloneDX"
    with pytest.raises(RefusedError, match="breaks its schema"):
        bom.validate(json.dumps(good))


def test_a_pin_without_a_licence_makes_no_document() -> None:
    with pytest.raises(RefusedError, match=r"no licence of pyjwt 2\.15\.2"):
        document(LOCK.replace("2.15.1", "2.15.2"))


@pytest.mark.parametrize("line", ["cffi>=2 \\", "-e .", "cffi==1 \\\ncffi2==1 \\"])
def test_a_lock_file_with_an_unpinned_package_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|no digest"):
        read_lock(LOCK + line + "\n")


@pytest.mark.parametrize("name", statements.LOCKS)
def test_the_real_lock_files_are_read_whole(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(read_lock(text)) == sum(line[:1].isalnum() for line in text.splitlines())
    assert all(package.via for package in read_lock(text))


def test_the_real_lock_file_makes_a_valid_document() -> None:
    packages = read_lock((ROOT / "requirements.lock").read_text())
    rows = licences.read_rows(licences.ROWS.read_text())
    made = json.loads(bom.document("1.0", packages, rows, 1))
    assert len(made["components"]) == len(packages)


def test_materials_are_the_commit_the_lock_files_and_each_pin() -> None:
    locks = {name: LOCK.encode() for name in statements.LOCKS}
    source, *files, pin = statements.materials("0" * 40, locks, read_lock(LOCK)[2:])
    assert source["digest"] == {"gitCommit": "0" * 40}
    assert [file["uri"] for file in files] == [f"file:{name}" for name in statements.LOCKS]
    assert all(file["digest"] == statements.digest(LOCK.encode()) for file in files)
    assert pin == {"uri": "pkg:pypi/pyjwt@2.15.1", "annotations": {"sha256": ["d" * 64]}}


def test_the_builder_is_the_workflow_or_the_named_one_or_a_person() -> None:
    workflow = {"GITHUB_SERVER_URL": "https://example.invalid", "GITHUB_WORKFLOW_REF": "o/h@v1"}
    assert statements.builder({}) == "urn:hpcc:builder:by-hand"
    assert statements.builder(workflow) == "https://example.invalid/o/h@v1"
    assert statements.builder(workflow | {"RELEASE_BUILDER": "urn:x"}) == "urn:x"


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    # The example of DSSE's protocol.md.
    got = dsse.pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert got == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_envelope_opens_with_its_key_only() -> None:
    sealed = dsse.seal({"a": 1}, KEY)
    assert dsse.unseal(sealed, KEY.public_key()) == {"a": 1}
    with pytest.raises(RefusedError, match="no signature"):
        dsse.unseal(sealed, OTHER.public_key())


def test_json_without_a_bottom_is_refused_and_no_crash() -> None:
    deep = "[" * 200_000
    with pytest.raises(RefusedError, match="not a DSSE envelope"):
        dsse.unseal(deep.encode(), KEY.public_key())
    with pytest.raises(RefusedError, match="not JSON"):
        bom.validate(deep)


def changed(sealed: bytes, **fields: object) -> bytes:
    return json.dumps(json.loads(sealed) | fields).encode()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"payload": base64.b64encode(b'{"a":2}').decode()}, "no signature"),
        ({"payloadType": "text/plain"}, "not an in-toto statement"),
        ({"signatures": []}, "no signature"),
        ({"signatures": "x"}, "not a DSSE envelope"),
        ({"payload": "*"}, "not a DSSE envelope"),
        ({"payload": None}, "not a DSSE envelope"),
        ({"signatures": [{}]}, "not a DSSE envelope"),
    ],
)
def test_a_changed_envelope_is_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(RefusedError, match=problem):
        dsse.unseal(changed(dsse.seal({"a": 1}, KEY), **fields), KEY.public_key())


def test_a_key_that_others_can_read_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o640)
    with pytest.raises(RefusedError, match="chmod 600"):
        dsse.load_private(file)
    file.chmod(0o600)
    assert dsse.load_private(file).public_key() == KEY.public_key()
    file.write_text("no key")
    with pytest.raises(RefusedError, match="no private key"):
        dsse.load_private(file)


def released(tmp_path: Path) -> Path:
    for name in ("a.whl", "b.tar.gz"):
        (tmp_path / name).write_text(name)
    (tmp_path / make.SUMS).write_bytes(make.sums(list(tmp_path.iterdir())))
    return tmp_path


def test_sums_cover_exactly_the_files_of_the_directory(tmp_path: Path) -> None:
    place = released(tmp_path)
    assert sorted(verify.check_sums(place)) == ["a.whl", "b.tar.gz"]
    (place / "a.whl").write_text("A.whl")
    with pytest.raises(RefusedError, match=r"a\.whl is not the file"):
        verify.check_sums(place)


def test_a_file_more_or_less_is_refused(tmp_path: Path) -> None:
    place = released(tmp_path)
    (place / "c").touch()
    with pytest.raises(RefusedError, match="differ in c"):
        verify.check_sums(place)
    (place / "c").unlink()
    (place / "a.whl").unlink()
    with pytest.raises(RefusedError, match=r"differ in a\.whl"):
        verify.check_sums(place)


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    place = released(tmp_path / "d" if (tmp_path / "d").mkdir() is None else tmp_path)
    (place / "a.whl").rename(tmp_path / "elsewhere")
    (place / "a.whl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="no plain file"):
        verify.check_sums(place)


@pytest.mark.parametrize("name", ["../a.whl", "a b", "", ".hidden"])
def test_a_name_in_the_sums_that_is_no_plain_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / make.SUMS).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(RefusedError, match="not understood"):
        verify.check_sums(tmp_path)


def test_an_unsigned_release_is_refused_unless_that_is_asked_for(tmp_path: Path) -> None:
    place = released(tmp_path)
    with pytest.raises(RefusedError, match="unsigned"):
        verify.read(place, verify.Wanted(key=None))
    with pytest.raises(RefusedError, match="unsigned"):
        verify.read(place, verify.Wanted(key=Path("k"), allow_unsigned=True))


def test_a_file_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    place = released(tmp_path)
    sums = place / make.SUMS
    sums.write_text(f"{'0' * 64}  a.whl\n{sums.read_text()}")
    with pytest.raises(RefusedError, match="not understood"):
        verify.check_sums(place)


def test_sums_that_another_key_signed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    place, public = released(tmp_path / "d"), tmp_path / "public.pem"
    public.write_bytes(dsse.public_pem(KEY.public_key()))
    (place / make.SUMS_SIGNATURE).write_bytes(OTHER.sign((place / make.SUMS).read_bytes()))
    with pytest.raises(RefusedError, match="is not this key's signature"):
        verify.read(place, verify.Wanted(key=public))


def test_a_statement_of_another_kind_or_other_files_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "a.whl").write_text("a")
    statement = statements.contents([file], {"b": 1})
    assert verify.check_statement(statement, bom.PREDICATE, [file]) == {"b": 1}
    with pytest.raises(RefusedError, match="not an in-toto statement of"):
        verify.check_statement(statement, statements.PROVENANCE, [file])
    file.write_text("b")
    with pytest.raises(RefusedError, match="about other files"):
        verify.check_statement(statement, bom.PREDICATE, [file])


class _Commit:
    """A commit that the repository has, with one lock file for both."""

    commit, version = "c" * 40, "1.0"

    def read(self, _: str) -> bytes:
        return LOCK.encode()


@pytest.mark.parametrize(
    ("change", "wanted", "problem"),
    [
        ({}, {"commit": "d" * 40}, "is of commit"),
        ({}, {"builder": "somebody"}, "the builder is"),
        ({"version": "2.0"}, {}, "is version 1.0"),
        ({"lock": LOCK.replace("a" * 64, "f" * 64)}, {}, "other materials"),
    ],
)
def test_a_provenance_that_is_untrue_is_refused(
    change: dict[str, str],
    wanted: dict[str, Any],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify.build, "source", lambda *_: _Commit())

    def checked(said: dict[str, str], expected: dict[str, Any]) -> object:
        lock = said.get("lock", LOCK)
        locks = dict.fromkeys(statements.LOCKS, lock.encode())
        version = said.get("version", "1.0")
        made = statements.provenance([], "c" * 40, version, locks, read_lock(lock))
        return verify.check_provenance(made["predicate"], ROOT, verify.Wanted(key=None, **expected))

    assert isinstance(checked({}, {}), _Commit)
    with pytest.raises(RefusedError, match=problem):
        checked(change, wanted)


VULNERABLE = {("h2", "4.4.1"): [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["4.5"]}]}


def test_a_finding_counts_unless_an_entry_covers_it_today() -> None:
    text = '[[accepted]]\nid = "CVE-1"\npackage = "h2"\nreason = "why"\nuntil = 2026-12-31\n'
    allowed = audit.read_allowed(text)
    red, covered = audit.judge(VULNERABLE, allowed, date(2026, 12, 31))
    assert (red, len(covered)) == ([], 1)
    red, covered = audit.judge(VULNERABLE, allowed, date(2027, 1, 1))
    assert (red, covered) == (["h2 4.4.1: CVE-1, PYSEC-1; fixed in 4.5"], [])
    allowed[0]["package"] = "h11"
    assert audit.judge(VULNERABLE, allowed, date(2026, 12, 1))[0]


@pytest.mark.parametrize(
    "entry",
    ['id = "a"', 'id = "a"\npackage = "b"\nreason = ""\nuntil = 2026-12-31',
     'id = "a"\npackage = "b"\nreason = "c"\nuntil = "later"'],
)  # fmt: skip
def test_an_entry_without_a_reason_or_a_day_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="until"):
        audit.read_allowed(f"[[accepted]]\n{entry}\n")


PARTLY = audit.Answer(known={"h2"}, unknown={"h11"})


@pytest.mark.parametrize(
    ("answers", "required", "code", "said"),
    [
        ([audit.Answer(known={"h2", "h11"})], True, 0, "2 packages checked"),
        ([audit.Answer(problem="no route")], False, 0, "NOT CHECKED: requirements.lock: no route"),
        ([audit.Answer(problem="no route")], True, 3, "NOT CHECKED"),
        # What one service does not know is asked of the next.
        ([PARTLY, audit.Answer(known={"h11"})], True, 0, "2 packages checked"),
        ([PARTLY, audit.Answer(problem="no route")], True, 3, "no service knows 1 packages"),
        ([PARTLY, audit.Answer(problem="no route")], False, 0, "no service knows 1 packages"),
        ([audit.Answer(VULNERABLE, known={"h2"})], False, 1, "VULNERABLE: h2 4.4.1"),
        # A finding stays one, whatever another service or its failure says.
        ([audit.Answer(VULNERABLE, {"h11"}, {"h2"}), audit.Answer(problem="x")], False, 1, "VULN"),
    ],
)
def test_what_was_not_checked_is_said_and_fails_only_if_required(
    answers: list[audit.Answer],
    required: bool,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = iter([*answers, *answers])
    monkeypatch.setattr(audit, "ask", lambda lock, service: next(asked))
    monkeypatch.setattr(audit, "_SERVICES", [("-s", str(n)) for n in range(len(answers))])
    assert audit.main(ROOT, osv="", required=required) == code
    assert said in capsys.readouterr().out


def test_an_answer_of_another_form_counts_for_nothing() -> None:
    assert audit.read_answer('{"dependencies": [{"name": "a", "skip_reason": "x"}]}').unknown == {
        "a"
    }
    for text in ("", "[]", '{"dependencies": [{"name": "a"}]}', "{}"):
        with pytest.raises(ValueError, match=r"pip-audit|Expecting"):
            audit.read_answer(text)


def test_the_real_list_is_well_formed() -> None:
    audit.read_allowed(audit.ALLOWED.read_text())
