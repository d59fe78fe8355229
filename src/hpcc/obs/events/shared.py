"""Events that any service may log: processes, connections, health, trails, stores, identities."""

from __future__ import annotations

from typing import Final

SHARED: Final = (
    ("service-ended", "the service ends: %s", "error"),
    ("service-crashed", "the service ends, an error was not handled"),
    ("thread-crashed", "thread %s ends, an error was not handled", "thread"),
    ("finalizer-failed", "an error while an object was freed is ignored: %s", "where"),
    ("admin-port-ended", "the admin port has ended"),
    ("admin-page-failed", "a page cannot be shown"),
    ("condition-unreadable", "%s cannot be read", "condition"),
    ("watch-failed", "%s cannot be looked at", "what"),
    (
        "service-manager-unusable",
        "%s is neither a path nor an abstract name: the service manager gets no messages",
        "variable",
    ),
    ("service-manager-failed", "the service manager cannot be told: %s", "error"),
    (
        "connections-banned",
        "refused: connections reason=%s peer=%s count=%d port=%d",
        "reason",
        "peer",
        "count",
        "port",
    ),
    (
        "connections-refused",
        "refused: connections reason=%s peer=%s count=%d open=%d limit=%d port=%d",
        "reason",
        "peer",
        "count",
        "open",
        "limit",
        "port",
    ),
    (
        "connections-refused-others",
        "refused: connections reason=%s peers=%d count=%d",
        "reason",
        "peers",
        "count",
    ),
    ("connections-uncounted", "connections are not counted"),
    (
        "connections-unfiltered",
        "connections of a flood cost a handshake: no socket filter: %s",
        "error",
    ),
    ("certificate-loaded", "new connections get the certificate in %s", "path"),
    ("certificate-kept", "the previous certificate stays in use: %s", "error"),
    (
        "syslog-lost",
        "syslog at %s takes no security events: %s",
        "server",
        "error",
    ),
    ("syslog-unsent", "syslog at %s did not get the last %d events", "server", "count"),
    ("syslog-back", "syslog at %s takes security events again", "server"),
    ("audit-segments-kept", "cannot delete old audit segments: %s", "error"),
    ("audit-index-behind", "audit index or segments lag behind: %s", "error"),
    (
        "announced-certificates",
        "the scheduler announces %d certificates",
        "count",
    ),
    ("announced-certificates-foreign", "the scheduler announces certificates of another name"),
    (
        "announced-certificates-malformed",
        "the scheduler announces what is not a certificate: %s",
        "error",
    ),
    ("announced-certificates-unread", "%s is not used: %s", "path", "error"),
    ("announced-certificates-unkept", "announced certificates are not kept: %s", "error"),
    ("image-endpoint-failed", "image endpoint failed: %s reason=%s", "endpoint", "reason"),
    ("image-evicted", "image evicted: %s size_bytes=%d", "image", "size_bytes"),
    ("image-removed", "image removed: %s reason=%s", "image", "reason"),
    ("image-compiler-odd", "%s in the image: %s", "compiler", "error"),
    ("state-file-unwritten", "%s is not written: %s", "path", "error"),
)
