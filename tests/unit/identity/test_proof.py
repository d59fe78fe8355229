"""Proofs: a copied token that names a key is useless without the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.identity.proof import ProofKey, check_proof
from hpcc.identity.token import TokenError

KEY, OTHER = ProofKey(), ProofKey()
TOKEN, METHOD, NOW = "a.b.c", "/p.Service/Method", 1_800_000_000.0
GOOD = KEY.sign(TOKEN, METHOD, NOW)


def refusal(proof: str, **changes: object) -> str:
    values: dict[str, object] = {
        "key": KEY.public,
        "token": TOKEN,
        "method": METHOD,
        "now": NOW,
        **changes,
    }
    with pytest.raises(TokenError) as refused:
        check_proof(proof, **values)  # type: ignore[arg-type]  # built by name just above
    return refused.value.reason


def test_who_holds_the_key_is_let_in_for_a_minute() -> None:
    for now in (NOW - 60, NOW, NOW + 60):
        check_proof(GOOD, key=KEY.public, token=TOKEN, method=METHOD, now=now)


def test_a_copied_token_without_its_key_is_refused() -> None:
    assert refusal("") == "token-proof"
    assert refusal(OTHER.sign(TOKEN, METHOD, NOW)) == "token-proof"


def test_a_proof_of_another_call_token_or_time_is_refused() -> None:
    assert refusal(GOOD, method="/p.Service/Other") == "token-proof"
    assert refusal(GOOD, token="a.b.d") == "token-proof"
    assert refusal(GOOD, key=OTHER.public) == "token-proof"
    assert refusal(f"{int(NOW * 1000) + 1}.{GOOD.partition('.')[2]}") == "token-proof"
    for now in (NOW - 61, NOW + 61):
        assert refusal(GOOD, now=now) == "token-proof-time"


def test_parts_cannot_be_moved_from_one_field_to_the_next() -> None:
    moved = KEY.sign("Method\0a.b.c", "/p.Service/", NOW)
    assert refusal(moved) == "token-proof"


@given(st.text(max_size=120))
def test_nonsense_is_refused(text: str) -> None:
    assert refusal(text) in {"token-proof", "token-proof-time"}


def test_a_key_that_is_none_is_refused() -> None:
    assert refusal(GOOD, key=b"\x00" * 31) == "token-proof"
