"""A second check in Go, made from the pages, agrees with hpcc's own."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.audit.tree.head import read_tree_head, sign_tree_head, what_changed
from hpcc.core import HpccError
from hpcc.evidence.making import read_subject
from hpcc.evidence.model import Grade, Making
from hpcc.evidence.readme import readme_text
from hpcc.evidence.verify import verify_evidence
from hpcc.ports import SignedTree
from hpcc_testkit.evidence.made import guest_row, library, made_evidence, pinned, raw, trail_of
from hpcc_testkit.evidence.second import SOURCE, SecondCheck, go_or_none
from hpcc_testkit.evidence.tampering import EvidenceTamperer
from hpcc_testkit.farm.audit_rows import KEY, opened, row

pytestmark = pytest.mark.skipif(go_or_none() is None, reason="no Go: tools/bootstrap.sh go")
OBJECTS = {f"object-with-a-long-name-{n}.o": b"object %d\n" % n for n in range(5)}
ROOT = Path(__file__).resolve().parents[3]


async def test_both_agree_on_good_files_and_on_each_forgery(
    tmp_path: Path, both: list[int]
) -> None:
    """Rows with texts and numbers that two readers of JSON may read or write in two ways."""
    odd = {
        "principal": "a\udc80b\u00e9\U0001f600\x7f</&>", "argv": ("gcc", "\ud800", "\\udc00", '"\t\u2028'),
        "started_at": 1.7e9 + 0.0000005, "duration_seconds": 1e-7, "worker": "w/1 \udc81",
    }  # fmt: skip
    rows = [guest_row(n, {f"out/{k}": v}, **odd) for n, (k, v) in enumerate(OBJECTS.items())]
    trail = await trail_of(tmp_path / "trail", rows, worker="w/1 \udc81")
    (tmp_path / "libm.a").write_bytes(library(OBJECTS))
    (tmp_path / "other.a").write_bytes(library(dict(list(OBJECTS.items())[:3])))
    made = made_evidence(tmp_path / "libm.a", [trail])
    other = made_evidence(tmp_path / "other.a", [trail])
    subject = read_subject(tmp_path / "libm.a")
    assert verify_evidence(made.data, subject, pinned()).coverage.is_proved
    tamperer, count = EvidenceTamperer(made, other, 133), 200
    for _ in range(count):
        _, data = tamperer.next()
        try:
            verify_evidence(data, subject, pinned())
        except HpccError:
            continue
    found = Counter(both)
    assert found.total() == count + 1
    assert found[5] > count * 0.9


def line(held: SignedTree, new: SignedTree | None = None, proof: tuple[bytes, ...] = ()) -> bytes:
    def table(said: SignedTree) -> dict[str, str]:
        return {"checkpoint": said.checkpoint.decode(), "key": said.key.hex()}

    found: dict[str, object] = {"worker": "w1", **table(held)}
    if new is not None:
        found = {"worker": "w1", "held": table(held), "new": table(new), "why": "",
                 "proof": [one.hex() for one in proof]}  # fmt: skip
    return json.dumps(found).encode() + b"\n"


async def test_both_agree_on_heads_and_on_proofs_that_one_contains_another(
    tmp_path: Path, second: SecondCheck
) -> None:
    heads: list[SignedTree] = []
    for count in (1, 2, 3, 1, 5):
        async with opened(tmp_path / "trail") as log:
            for number in range(count):
                await log.append(row(len(heads) * 10 + number))
            heads.append(log.signed_tree(None))
    agreed: Counter[bool] = Counter()
    for held in heads:
        assert second.history(line(held))[0] == 0
        mark = read_tree_head("w1", held.checkpoint, held.key)
        async with opened(tmp_path / "trail") as log:
            new = log.signed_tree(mark.mark)
        for proof in {new.proof, new.proof[:-1], new.proof[::-1], (*new.proof, bytes(32)), ()}:
            said = replace(new, proof=proof)
            head = read_tree_head("w1", new.checkpoint, new.key)
            is_good = not what_changed(mark, head, said)
            assert second.history(line(held, new, proof))[0] == (0 if is_good else 5)
            agreed[is_good] += 1
        other = replace(mark, root=bytes(32))
        forged = replace(held, checkpoint=sign_tree_head(other, raw(KEY), KEY.sign))
        assert second.history(line(forged, new, new.proof))[0] == 5
        unsigned = replace(held, checkpoint=held.checkpoint.replace(b"\nat 1", b"\nat 2"))
        assert second.history(line(unsigned))[0] == 5
    assert agreed[True] >= len(heads)
    assert agreed[False] >= len(heads)


def test_the_page_has_the_text_of_the_readme() -> None:
    page = (ROOT / "docs/spec/evidence.md").read_text()
    (block,) = re.findall(r"```text\n(Evidence about a file.*?)```", page, re.DOTALL)
    assert block == (SOURCE / "readme.txt").read_text()
    words = {"DIGEST": "0" * 64, "ROWS": "3", "WORKERS": "w1"}
    wanted = re.sub("|".join(words), lambda found: words[found[0]], block)
    assert (
        readme_text(Making(name="a", digest="0" * 64, grade=Grade.WHOLE, parts=()), {"w1": b""}, 3)
        == wanted.encode()
    )
