"""Who somebody is: providers' tokens, route tokens, signing keys, generated certificates."""

from hpcc.identity._keys import (
    key_id,
    load_or_create_secret,
    load_or_create_signing_key,
    load_or_create_tls,
)
from hpcc.identity._oidc_http import ProviderError, ProviderHttp, check_provider_url
from hpcc.identity._oidc_keys import ALGORITHMS, KeyCache, KeyCacheLimits
from hpcc.identity._oidc_verify import (
    DEFAULT_ALGORITHMS,
    MAX_IDP_TOKEN_CHARS,
    IdentityPolicy,
    IdpIdentity,
    IdpTokenError,
    peek_claims,
    read_header,
    verify_idp_token,
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
    "ALGORITHMS",
    "DEFAULT_ALGORITHMS",
    "MAX_CERTIFICATE_BYTES",
    "MAX_IDP_TOKEN_CHARS",
    "MAX_LIFETIME_SECONDS",
    "MAX_PRINCIPAL_CHARS",
    "MAX_TOKEN_CHARS",
    "IdentityPolicy",
    "IdpIdentity",
    "IdpTokenError",
    "KeyCache",
    "KeyCacheLimits",
    "PinnedPeer",
    "ProviderError",
    "ProviderHttp",
    "RouteClaims",
    "TlsIdentity",
    "TokenError",
    "TokenSigner",
    "TokenVerifier",
    "certificate_id",
    "check_provider_url",
    "key_id",
    "load_or_create_secret",
    "load_or_create_signing_key",
    "load_or_create_tls",
    "peek_claims",
    "read_header",
    "verify_idp_token",
]
