"""The limits of the port, and a decision that both stores make: which session ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hpcc.core import CallerError
from hpcc.ports import MAX_NAME_CHARS, MAX_NEWS_CHARS, MAX_VALUE_BYTES

_NAME: Final = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_NAME_CHARS}}}")


def check_name(*names: str) -> None:
    """Reject names that a store could not keep.

    Raises:
        CallerError: empty, too long, or with control characters or lone surrogates.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise CallerError("a name in the control store is empty, too long or not plain text")


def check_value(value: bytes, most: int = MAX_VALUE_BYTES) -> None:
    """Reject values larger than `most` bytes.

    Raises:
        CallerError: the value is too large.
    """
    if len(value) > most:
        raise CallerError(f"a value in the control store is larger than {most} bytes")


def check_news(topic: str, text: str) -> None:
    """Reject a broadcast that cannot be carried. An escape turns one character into six.

    Raises:
        CallerError: it is too large, or the topic is not a valid name.
    """
    check_name(topic)
    if len(text) > MAX_NEWS_CHARS or not text.isascii() or not text.isprintable():
        raise CallerError("a broadcast must be short, printable ASCII")


def victim(room: Mapping[str, tuple[int, int]], newcomer: str) -> tuple[str, int]:
    """Return the principal and serial of the session that ends to make room for a newcomer.

    `room` holds each principal's number of sessions and the serial of its oldest one. As with
    watchers, "much" is two or more: a principal's flood of logins ends its own sessions.
    """
    greediest = max(room, key=lambda p: (room[p][0], -room[p][1]))
    own, most = room.get(newcomer, (0, 0))[0], room[greediest][0]
    if own and most <= own + 1:
        chosen = newcomer
    elif most == 1:
        chosen = min(room, key=lambda p: room[p][1])
    else:
        chosen = greediest
    return chosen, room[chosen][1]
