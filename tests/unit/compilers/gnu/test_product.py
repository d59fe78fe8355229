"""What makes no object is in none of the lists that share results or leave names out of keys."""

from __future__ import annotations

import pytest

from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.content import content_form
from hpcc.compilers.invocation.invocation import Invocation, Product
from hpcc.compilers.invocation.share import why_private
from hpcc.core.reasons.private import PrivateReason


@pytest.mark.parametrize(
    ("flags", "product", "reason"),
    [
        ("-c -o a.o", Product.OBJECT, ""),
        ("-fsyntax-only", Product.MESSAGES, PrivateReason.FLAGS),
        ("-c -fsyntax-only -o a.o", Product.MESSAGES, PrivateReason.FLAGS),
        ("-E -o a.i", Product.TEXT, PrivateReason.FLAGS),
        ("-E", Product.TEXT, PrivateReason.FLAGS),
        ("-x ir -c -o a.o", Product.BACK_END, PrivateReason.FLAGS),
    ],
)
def test_only_objects_leave_their_checkout(flags: str, product: Product, reason: str) -> None:
    found = read_invocation(b"gcc", (*flags.encode().split(), b"a.c"))
    assert isinstance(found, Invocation)
    assert found.product is product
    assert why_private(found, b"/work", is_clang=False, major=14) == reason
    assert (content_form(found, is_clang=False, major=14) is None) is (reason != "")
