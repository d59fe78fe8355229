"""Each evidence file that a test here checks is checked by the second program as well.

So each forgery of these tests is one of the second check too: where Go is, `verify_evidence` of the
test modules also asks it, and the test fails where the two differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.core import HpccError
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import PinnedKeys
from hpcc.evidence.making import ReadSubject, read_subject
from hpcc.evidence.model import EvidencePolicy
from hpcc.evidence.verify import VerifiedEvidence, verify_evidence
from hpcc_testkit.evidence.second import SecondCheck, go_or_none


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondCheck | None]:
    """The second check, None where Go is missing."""
    if go_or_none() is None:
        yield None
        return
    found = SecondCheck(tmp_path_factory.mktemp("second"))
    yield found
    found.close()


@pytest.fixture(autouse=True)
def both(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[list[int]]:
    """Ask both checks; yields the statuses on which they agreed."""
    agreed: list[int] = []
    module = sys.modules[request.module.__name__]
    if not hasattr(module, "verify_evidence"):
        yield agreed
        return
    check: SecondCheck | None = request.getfixturevalue("second")
    files: dict[str, Path] = {}

    def read(path: Path) -> ReadSubject:
        found = read_subject(path)
        copy = tmp_path / f"subject-{found.digest}"
        copy.write_bytes(path.read_bytes())
        files[found.digest] = copy
        return found

    def verify(
        data: bytes, subject: ReadSubject, pinned: PinnedKeys, policy: EvidencePolicy | None = None
    ) -> VerifiedEvidence:
        found, error = None, None
        try:
            found = verify_evidence(data, subject, pinned, policy)
            status = 0 if found.evidence.coverage().is_proved else 3
        except HpccError as raised:
            error, status = raised, 5
        file = files.get(subject.digest)
        # A test may say that a file has other members than it has.
        if check is not None and file is not None and read_subject(file)[1:] == subject[1:]:
            other, why = check.evidence(data, file, pinned)
            assert other == status, (other, why, status, error)
            agreed.append(status)
        if found is None:
            assert isinstance(error, EvidenceDamagedError)
            raise error
        return found

    monkeypatch.setattr(module, "verify_evidence", verify)
    if hasattr(module, "read_subject"):
        monkeypatch.setattr(module, "read_subject", read)
    yield agreed
