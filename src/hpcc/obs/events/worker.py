"""Events of a worker and its runtimes."""

from __future__ import annotations

from typing import Final

WORKER: Final = (
    ("registration-failed", "cannot register: %s", "error"),
    ("registration-stale", "cannot register what has changed: %s", "error"),
    ("deregistration-failed", "cannot deregister: %s", "error"),
    ("heartbeat-failed", "heartbeat: %s", "error"),
    ("lost-guest-unreported", "cannot report a lost guest yet: %s", "error"),
    ("signing-keys-unfetched", "cannot ask for signing keys: %s", "error"),
    ("enrolment-needed", "this worker must be enrolled again: %s", "error"),
    ("worker-certificate-unrenewed", "cannot renew the worker's certificate yet: %s", "error"),
    ("result-key-follows", "result key %s follows in %g s", "key", "seconds"),
    ("result-key-signs", "result key %s signs", "key"),
    ("result-key-unmade", "no new result key: %s", "error"),
    ("result-key-kept", "the old result key stays: %s", "error"),
    ("results-unshared", "%d results are not shared: it took too long", "count"),
    ("result-unshared", "a result is not shared"),
    ("result-unverified", "a result is not verified"),
    ("drain-step-failed", "drain: %s", "error"),
    ("execution-failed", "execution failed"),
    ("guest-still-there", "guest %s is not gone yet", "guest"),
    ("guest-refused", "guest: %s", "error"),
    ("guest-failed", "guest failed"),
    (
        "guest-lost-unreported",
        "guest %s is lost and cannot be reported: %s",
        "guest",
        "error",
    ),
    ("guest-lost-report-failed", "guest %s is lost and cannot be reported", "guest"),
    ("image-label-wrong", "image %s: %s", "image", "what"),
    ("image-compilers-unkept", "compilers of image %s cannot be kept: %s", "image", "error"),
    (
        "image-compilers-interrupted",
        "compilers of image %s: a compile needed the memory",
        "image",
    ),
    ("image-compilers-unknown", "compilers of image %s are not known: %s", "image", "error"),
    ("image-without-compiler", "image %s has no compiler that answers", "image"),
    ("image-compilers-unasked", "images cannot be asked again for their compilers"),
    ("audit-segments-wait", "audit segments wait for their bucket: %s", "error"),
    ("audit-records-wait", "audit records wait for their sink: %s", "error"),
    ("places-unleased", "cannot lease places: %s", "error"),
    ("qemu-without-jail", "QEMU runs without a jail: %s", "error"),
    ("snapshot-event", "snapshots: %s %s", "name", "fields"),
    ("snapshot-failed", "no snapshot %s", "snapshot"),
    ("snapshot-unmade", "no snapshot of %s: %s", "image", "error"),
)
