"""Who somebody is: route tokens, signing keys, generated certificates."""

from hpcc.identity._keys import (
    key_id,
    load_or_create_secret,
    load_or_create_signing_key,
    load_or_create_tls,
)
from hpcc.identity._tls import MAX_CERTIFICATE_BYTES, PinnedPeer, TlsIdentity, certificate_id
from hpcc.identity._token import (
    MAX_LIFETIME_SECONDS,
    MAX_PRINCIPAL_CHARS,
    MAX_TOKEN_CHARS,
    RouteClaims,
    TokenError,
    TokenSigner,
    TokenVerifier,
)

__all__ = [
    "MAX_CERTIFICATE_BYTES",
    "MAX_LIFETIME_SECONDS",
    "MAX_PRINCIPAL_CHARS",
    "MAX_TOKEN_CHARS",
    "PinnedPeer",
    "RouteClaims",
    "TlsIdentity",
    "TokenError",
    "TokenSigner",
    "TokenVerifier",
    "certificate_id",
    "key_id",
    "load_or_create_secret",
    "load_or_create_signing_key",
    "load_or_create_tls",
]
