"""Searches an object for the time of its compile: the last guard against `__DATE__`.

The scan of the sources finds the macros by name. Names can be pasted together (`__DA ## TE__`), but
their expansion is then in the object, in the form that the C standard prescribes.
"""

from __future__ import annotations

import calendar
import re
import time
from typing import Final

_SECOND_NS: Final = 1_000_000_000
_DAY_SECONDS: Final = 86_400
_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
# The leading colon lets the search skip ahead: thirty times as fast on an object.
_TIME: Final = re.compile(rb":(?<=(?:[01]\d|2[0-3]):)[0-5]\d:([0-6]\d)(?!\d)")
_MINUTE: Final = 60
# __TIMESTAMP__ has asctime's form and the time of the file's last change, so any time.
_TIMESTAMP: Final = re.compile(
    rb":(?<=(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?:%s) [ \d]\d \d\d:)\d\d:\d\d \d{4}"
    % b"|".join(_MONTHS)
)
_BEFORE_COLON: Final = len(b"Thu Jan  1 00")
# POSIX and glibc allow a time zone that is 167 hours from UTC.
_FURTHEST_SECONDS: Final = 168 * 3600


def mentions_clock(data: bytes, started_ns: int, ended_ns: int) -> bool:
    """Tell whether `data` contains a date or time of day of that span, in any time zone."""
    started, ended = started_ns // _SECOND_NS, ended_ns // _SECOND_NS
    days = _days(started, ended)
    if any(year in data for year in {day[-5:] for day in days}) and any(d in data for d in days):
        return True
    if b":" not in data:
        return False
    # Time zones differ by whole minutes, so the second is the same in all.
    seconds = {n % _MINUTE for n in range(started, min(ended, started + _MINUTE) + 1)}
    return any(int(match[1]) in seconds for match in _TIME.finditer(data))


def timestamps_in(data: bytes) -> frozenset[bytes]:
    """Return everything in `data` that has the form of an expansion of __TIMESTAMP__."""
    matches = _TIMESTAMP.finditer(data)
    return frozenset(data[m.start() - _BEFORE_COLON : m.end()] for m in matches)


def is_timestamp_of(stamp: bytes, changed_ns: int) -> bool:
    """Tell whether a text of `timestamps_in` may be that time, in any time zone."""
    try:
        moment = calendar.timegm(time.strptime(stamp.decode(), "%a %b %d %H:%M:%S %Y"))
    except ValueError:
        return False  # no such day: nothing prints it
    return abs(moment - changed_ns // _SECOND_NS) <= _FURTHEST_SECONDS


def _days(started: int, ended: int) -> set[bytes]:
    """Return the dates in the form of `__DATE__`; time zones reach from -12 to +14 hours."""
    moments = range(started - _DAY_SECONDS, ended + 2 * _DAY_SECONDS, _DAY_SECONDS)
    days = map(time.gmtime, moments)
    return {b"%s %2d %d" % (_MONTHS[d.tm_mon - 1], d.tm_mday, d.tm_year) for d in days}
