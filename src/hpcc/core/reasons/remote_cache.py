"""Why an entry of a remote cache was not believed: `remote-cache.refused.REASON`."""

from __future__ import annotations

from hpcc.core.reasons.reason import Reason


class RefusedEntry(Reason, prefix="remote-cache.refused"):
    """The compile missed, as if the entry were absent."""

    # fmt: off
    EXPIRED_KEY = (
        "expired-key", "signed with a key whose last day is over",
        "Make a new key with `hpcc cache keygen`, and confirm it.")
    MALFORMED = (
        "malformed", "no entry of this version, or a part of one",
        "Nothing to do. If it lasts, something else writes below the same prefix.")
    NAMESPACE = (
        "namespace", "made for another namespace",
        "Nothing to do. If it lasts, somebody copies objects.")
    OTHER_KEY = (
        "other-key", "made for another compile than the one whose name it has",
        "Nothing to do. If it lasts, somebody copies objects.")
    REVOKED_KEY = (
        "revoked-key", "signed with a key that was revoked",
        "Nothing to do: the next build of CI replaces it.")
    ROLE = (
        "role", "signed with a key that may sign something else only",
        "Sign with a key for entries.")
    SIGNATURE = (
        "signature", "its bytes are not those that were signed",
        "Revoke the credential of the bucket: somebody without a key writes there.")
    TOO_LARGE = (
        "too-large", "unpacks to more than `max_entry_bytes`", "Raise `max_entry_bytes`.")
    UNKNOWN_KEY = (
        "unknown-key", "signed with a key that this checkout does not trust",
        "`hpcc cache status` lists the keys that count here, `hpcc cache trust` adds one.")
    # fmt: on
