"""A guest's report is used only if nothing in it tells where it was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from hpcc.cache.analysers.report import check_report
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.compilers.tidy.family import TIDY

ROOT = b"/home/me/p"
GUEST = GuestMap(ROOT, ROOT, lambda _path: False, ROOT, b"/src" + ROOT)
RUN = cast("Prepared", SimpleNamespace(family=TIDY))


@pytest.mark.parametrize(
    "messages",
    [
        b"",
        b"/home/me/p/a.cc:1:2: warning: use nullptr [x]\n/usr/include/x.h:1:1: note: here\n",
        b"inc/a.h:1:2: warning: text\n    1 | int src_home; // home_me_p\n",
        b"/home/me/p/src/home.cc:1:2: error: no\n",
    ],
)
def test_a_report_of_the_project_is_used(messages: bytes) -> None:
    check_report(RUN, GUEST, messages)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (b"/usr/include/x.h:1:1: warning: sorted by this name [x]\n", "analyser"),
        (b"/home/me/p2/x.h:1:1: warning: of a neighbour [x]\n", "analyser"),
        (b"#define SRC_HOME_ME_P_INC_H_H\n", "names-in-output"),
        (b"file:///src/home/me/p\n", "names-in-output"),
        (
            b"a.cc:1:1: warning: missing username/bug in TODO [google-readability-todo]\n",
            "analyser",
        ),
    ],
)
def test_a_report_that_tells_more_is_not(messages: bytes, reason: str) -> None:
    with pytest.raises(NotPortableError) as raised:
        check_report(RUN, GUEST, messages)
    assert raised.value.reason == reason
