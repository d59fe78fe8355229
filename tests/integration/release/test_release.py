"""A real release from a clean clone: built twice, signed, verified, and refused once it is changed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from packages.table import PACKAGES
from release import build, dsse, make, statements, verify
from release.dsse import RefusedError

ROOT = Path(__file__).resolve().parents[3]

# Four builds of wheel, source archive and packages.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "RELEASE_"))}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Made:
    """The clone, the release that `make release` made in it, and its keys."""

    def __init__(self, place: Path) -> None:
        self.clone, self.key = place / "clone", place / "key.pem"
        self.public, self.out = place / "key.pub.pem", place / "clone/dist/release"
        run("git", "clone", "-q", ROOT, self.clone, cwd=place)
        # The environment of this run, so that the clone installs nothing.
        (self.clone / ".venv").symlink_to(Path(sys.prefix))
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", self.key, cwd=place)
        self.key.chmod(0o600)
        run("openssl", "pkey", "-in", self.key, "-pubout", "-out", self.public, cwd=place)
        self.said = self.make("release", f"RELEASE_KEY={self.key}")
        self.signer = dsse.load_private(self.key)

    def make(self, *arguments: str) -> str:
        return run("make", "-o", ".venv/.hpcc-dev-stamp", *arguments, cwd=self.clone)

    def verify(self, directory: Path, **wanted: object) -> int:
        expected = verify.Wanted(**({"key": self.public, "rebuild": False} | wanted))  # type: ignore[arg-type]  # of the test's choice
        return verify.main(self.clone, directory, expected)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    # Packages are large and no test changes one; the others are copied.
    return Path(shutil.copytree(made.out, tmp_path / "copy", copy_function=link_or_copy))


def link_or_copy(source: str, target: str) -> None:
    (os.link if source.endswith((".deb", ".rpm")) else shutil.copy2)(source, target)


def built(place: Path) -> list[Path]:
    """Return what a release consists of, without what describes it."""
    return [file for file in place.iterdir() if file.name.endswith(build.ENDINGS)]


def resign(place: Path, key: Ed25519PrivateKey) -> None:
    """Write checksums and their signature anew."""
    for name in (make.SUMS, make.SUMS_SIGNATURE):
        (place / name).unlink()
    listed = make.sums(list(place.iterdir()))
    (place / make.SUMS).write_bytes(listed)
    (place / make.SUMS_SIGNATURE).write_bytes(key.sign(listed))


def one(place: Path, pattern: str) -> Path:
    (found,) = place.glob(pattern)
    return found


def restate(place: Path, key: Ed25519PrivateKey, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]  # JSON
    """Change the provenance, and sign it and the checksums."""
    file = one(place, "*.provenance.intoto.jsonl")
    statement = json.loads(base64.b64decode(json.loads(file.read_bytes())["payload"]))
    change(statement)
    file.write_bytes(dsse.seal(statement, key))
    resign(place, key)


def test_a_release_is_verified_and_built_again_from_the_clone(made: Made) -> None:
    assert f"signed by key {dsse.key_id(made.signer.public_key())}" in made.said
    said = made.make("release-verify", f"KEY={made.public}")
    assert "rebuilt here: wheel, source archive and packages have the same bytes" in said
    assert "valid CycloneDX 1.6" in said


def test_it_has_each_package_of_both_kinds_and_their_checksums(made: Made) -> None:
    listed = (made.out / make.SUMS).read_text()
    for package in PACKAGES:
        for mark in (f"{package.name}_*.deb", f"{package.name}-[0-9]*.rpm"):
            assert one(made.out, mark).name in listed


def test_openssl_and_sha256sum_alone_can_check_it(made: Made, tmp_path: Path) -> None:
    run("sha256sum", "--quiet", "--strict", "-c", make.SUMS, cwd=made.out)
    check = ("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", made.public, "-rawin")
    signature = made.out / make.SUMS_SIGNATURE
    run(*check, "-in", made.out / make.SUMS, "-sigfile", signature, cwd=tmp_path)
    for file in made.out.glob("*.intoto.jsonl"):
        envelope = json.loads(file.read_bytes())
        body, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        signed = f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body
        (tmp_path / "signed").write_bytes(signed)
        (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
        run(*check, "-in", tmp_path / "signed", "-sigfile", tmp_path / "sig", cwd=tmp_path)


def test_nothing_of_the_machine_is_in_it(made: Made) -> None:
    words = [str(made.clone), str(ROOT), "hpcc-release-"]
    for file in [*made.out.glob("*.json"), *made.out.glob("*.jsonl")]:
        content = file.read_bytes()
        if file.suffix == ".jsonl":
            content = base64.b64decode(json.loads(content)["payload"])
        assert not [word for word in words if word.encode() in content], file.name
    with zipfile.ZipFile(one(made.out, "*.whl")) as wheel:
        for name in wheel.namelist():
            assert str(made.clone).encode() not in wheel.read(name), name


@pytest.mark.parametrize(
    "pattern", ["*.whl", "*.tar.gz", "*.cdx.json", "*.provenance.*", "*.sbom.*"]
)
def test_one_changed_byte_is_refused_also_with_new_checksums(
    made: Made, copy: Path, pattern: str
) -> None:
    file = one(copy, pattern)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RefusedError, match="is not the file"):
        made.verify(copy)
    (copy / make.SUMS).write_bytes(make.sums([f for f in copy.iterdir() if "SUMS" not in f.name]))
    with pytest.raises(RefusedError, match="not this key's signature"):
        made.verify(copy)
    resign(copy, Ed25519PrivateKey.generate())
    with pytest.raises(RefusedError, match="not this key's signature"):
        made.verify(copy)
    # A party that may sign checksums cannot put a file beside statements about another one.
    resign(copy, made.signer)
    with pytest.raises(RefusedError):
        made.verify(copy)


def test_an_envelope_of_another_key_is_refused(made: Made, copy: Path) -> None:
    restate(copy, Ed25519PrivateKey.generate(), lambda _: None)
    resign(copy, made.signer)
    with pytest.raises(RefusedError, match="no signature of the envelope"):
        made.verify(copy)


def _drop_a_material(statement: dict) -> None:  # type: ignore[type-arg]  # JSON
    del statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]


def _name_an_older_commit(statement: dict) -> None:  # type: ignore[type-arg]  # JSON
    statement["predicate"]["buildDefinition"]["externalParameters"]["commit"] = "0" * 40


def _other_subject(statement: dict) -> None:  # type: ignore[type-arg]  # JSON
    statement["subject"].pop()


def _other_build(statement: dict) -> None:  # type: ignore[type-arg]  # JSON
    statement["predicate"]["buildDefinition"]["buildType"] = "urn:other"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_drop_a_material, "other materials"),
        (_name_an_older_commit, "git rev-parse"),
        (_other_subject, "about other files"),
        (_other_build, "of type 'urn:other'"),
    ],
)
def test_a_provenance_that_is_signed_and_untrue_is_refused(
    made: Made,
    copy: Path,
    change: Callable[[dict], None],  # type: ignore[type-arg]  # JSON
    problem: str,
) -> None:
    restate(copy, made.signer, change)
    with pytest.raises(RefusedError, match=problem):
        made.verify(copy)


def test_a_bill_of_materials_that_lacks_a_package_is_refused(made: Made, copy: Path) -> None:
    file = one(copy, "*.cdx.json")
    content = json.loads(file.read_bytes())
    content["components"] = [c for c in content["components"] if c["name"] != "cryptography"]
    gone = "pkg:pypi/cryptography@"
    content["dependencies"] = [
        d | {"dependsOn": [r for r in d.get("dependsOn", []) if not r.startswith(gone)]}
        for d in content["dependencies"]
        if not d["ref"].startswith(gone)
    ]
    file.write_text(json.dumps(content))
    sealed = dsse.seal(statements.contents(built(copy), content), made.signer)
    one(copy, "*.sbom.*").write_bytes(sealed)
    subjects = statements.subjects([*built(copy), file])
    restate(copy, made.signer, lambda statement: statement.update(subject=subjects))
    with pytest.raises(RefusedError, match="not that of the commit"):
        made.verify(copy)


def test_a_wheel_that_the_commit_does_not_make_is_refused_with_any_signature(
    made: Made, copy: Path
) -> None:
    wheel = one(copy, "*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("hpcc/planted.py", "")
    content = json.loads(one(copy, "*.cdx.json").read_bytes())
    sealed = dsse.seal(statements.contents(built(copy), content), made.signer)
    one(copy, "*.sbom.*").write_bytes(sealed)
    subjects = statements.subjects([*built(copy), one(copy, "*.cdx.json")])
    restate(copy, made.signer, lambda statement: statement.update(subject=subjects))
    assert made.verify(copy) == 0  # what a signature alone shows
    with pytest.raises(RefusedError, match=r"not reproducible: differs in hpcc/planted\.py"):
        made.verify(copy, rebuild=True)


def test_another_builder_or_commit_than_expected_is_refused(made: Made, copy: Path) -> None:
    assert made.verify(copy, builder=statements.BY_HAND) == 0
    with pytest.raises(RefusedError, match="the builder is"):
        made.verify(copy, builder="urn:other")
    with pytest.raises(RefusedError, match="the release is of commit"):
        made.verify(copy, commit="1" * 40)


def test_a_changed_tree_and_another_version_make_no_release(made: Made, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"HEAD is version .*, not 99\.0"):
        make.main(made.clone, tmp_path / "out", version="99.0", key="")
    readme = made.clone / "README.md"
    text = readme.read_text()
    readme.write_text(text + "\n")
    with pytest.raises(RefusedError, match="commit or discard first"):
        make.main(made.clone, tmp_path / "out", version="", key="")
    readme.write_text(text)
    assert not (tmp_path / "out").exists()


def test_without_a_key_it_says_unsigned_and_is_accepted_only_if_asked(
    made: Made, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The files of the signed release, so that nothing is built.
    monkeypatch.setattr(
        make,
        "build_twice",
        lambda origin, out: [Path(shutil.copyfile(file, out / file.name)) for file in built(copy)],
    )
    out = copy.parent / "unsigned"
    assert make.main(made.clone, out, version="", key="") == 0
    assert "UNSIGNED: nothing shows who made it" in capsys.readouterr().out
    with pytest.raises(RefusedError, match="unsigned"):
        made.verify(out)
    assert made.verify(out, key=None, allow_unsigned=True) == 0
    assert "verify: UNSIGNED" in capsys.readouterr().out
    # A trial's key is new in each release and says so.
    trial = copy.parent / "trial"
    assert make.main(made.clone, trial, version="", key=make.TRIAL) == 0
    assert "FOR A TRIAL" in capsys.readouterr().out
    assert made.verify(trial, key=trial / make.TRIAL_KEY) == 0
    assert "MADE FOR A TRIAL" in capsys.readouterr().out
    with pytest.raises(RefusedError, match="not this key's signature"):
        made.verify(trial)
