"""Why an entry or a pack of a remote cache was not believed.

The counters are `remote-cache.refused.REASON` and `remote-cache.pack-refused.REASON`.
"""

from __future__ import annotations

from hpcc.core.reasons.reason import Reason


class RefusedEntry(Reason, prefix="remote-cache.refused"):
    """The compile missed, as if the entry were absent."""

    # fmt: off
    EXPIRED_KEY = (
        "expired-key", "signed with a key whose last day is over",
        "Make a new key with `hpcc cache keygen`, and confirm it.")
    FARM = (
        "farm", "a result of a farm in a pack that does not count here: only for another person, "
        "of another class than the tenant accepts, or not signed by a worker of this farm",
        "Nothing to do: the farm is asked. `daemon.log` says what was wrong with it.")
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


class RefusedPack(Reason, prefix="remote-cache.pack-refused"):
    """The pack was not stored, as if it were absent."""

    # fmt: off
    CHUNK = (
        "chunk", "one of its chunks has other bytes than its index says",
        "Revoke the credential of the bucket: somebody without a key writes there.")
    KEY = (
        "key", "signed with a key that does not count for this checkout",
        "`hpcc cache status` lists the keys that count here, `hpcc cache trust` adds one.")
    MALFORMED = (
        "malformed", "no pack of this version, or a part of one",
        "Nothing to do. If it lasts, something else writes below the same prefix.")
    NAMESPACE = (
        "namespace", "made for another namespace",
        "Nothing to do. If it lasts, somebody copies objects.")
    OTHER_COMMIT = (
        "other-commit", "made for another commit than the one whose name it has",
        "Nothing to do. If it lasts, somebody copies objects.")
    RATIO = (
        "ratio", "a chunk would unpack to over 200 times its size",
        "Ask the holder of the key: hpcc makes no such packs.")
    SIGNATURE = (
        "signature", "its bytes are not those that were signed",
        "Revoke the credential of the bucket: somebody without a key writes there.")
    SIZES = (
        "sizes", "the sizes in its index do not add up",
        "Ask the holder of the key: hpcc makes no such packs.")
    TOO_LARGE = (
        "too-large", "larger than a quarter of the cache, or than another limit",
        "Raise `max_size_bytes`, or push packs of fewer builds.")
    # fmt: on
