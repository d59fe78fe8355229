"""Each check of a gateway is needed: without it, the test named after the attack fails.

The cases work as in `test_identity_notices.py`.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

ATTACKS = "tests/integration/gateway/test_gateway_attacks.py::"
ORDER = "tests/unit/runtime/channel/test_output_order.py::"
LINK = "rpc/relay/link.py"


CASES = {
    "two-tokens": Case(LINK, "is_bearer = len(values) == 1 and", "is_bearer = bool(values) and",
                       ATTACKS + "test_two_tokens_in_one_call_are_refused"),
    "token-tenant": Case("gateway/visitors.py", "key = (tenant.value, _hash(credential))",
                         'key = ("", _hash(credential))',
                         ATTACKS + "test_a_token_that_was_good_for_one_tenant_opens_no_other"),
    "write-order": Case("rpc/base/write_order.py", "if message.write_offset != self.received_bytes or (",
                        "if False and (",
                        ATTACKS + "test_an_upload_with_gaps_overlaps_or_another_name_is_refused"),
    "output-parent": Case("runtime/channel/output_order.py",
                          'if not is_new or path.rpartition("/")[0] not in self._seen_directories:',
                          "if not is_new:", ORDER + "test_an_output_that_may_not_come_now_is_a_breach"),
    "output-count": Case("runtime/channel/output_order.py", "return self._entries <= MAX_OUTPUT_ENTRIES",
                         "return True",
                         ORDER + "test_a_million_entries_in_an_output_directory_are_a_breach"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
