"""Refuses a guest's report in which something shows that is not so on this machine."""

from __future__ import annotations

import re
from typing import Final

from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.guest_paths import is_under
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.core.reasons.fallback import FallbackReason

_COLOUR: Final = re.compile(rb"\x1b\[[0-9;]*m")
_NO_WORD: Final = re.compile(rb"[^0-9a-z]+")
# Notes may lie elsewhere: they follow their finding.
_FINDING: Final = re.compile(rb"^(/[^\n]*?):\d+:\d+: (?:warning|error): ", re.MULTILINE)


def check_report(prepared: Prepared, guest: GuestMap, messages: bytes) -> None:
    """Check a report that has this machine's paths already.

    clang-tidy sorts its findings by the names of their files. Those below the root keep their order
    in a guest. Others could change places with them.

    Raises:
        NotPortableError: this machine could give another report.
    """
    messages = _COLOUR.sub(b"", messages)
    if prepared.family.shows_more(messages):
        raise NotPortableError(FallbackReason.ANALYSER, "a finding shows more than the sources")
    # A check may spell the root's name in another way: `SRC_HOME_ME_P_INC_H_H` for a guard.
    base, text = (_NO_WORD.sub(b"_", t.lower()).strip(b"_") for t in (guest.base, messages))
    if re.search(rb"(?<![0-9a-z])" + base + rb"(?![0-9a-z])", text):
        raise NotPortableError(
            FallbackReason.NAMES_IN_OUTPUT, guest.base.decode("utf-8", "replace")
        )
    for found in _FINDING.finditer(messages):
        if not is_under(found[1], guest.root):
            name = found[1].decode("utf-8", "replace")
            raise NotPortableError(
                FallbackReason.ANALYSER, f"a finding outside of the root: {name}"
            )
