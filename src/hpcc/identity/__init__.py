"""Who somebody is: providers' tokens, route tokens, signing keys, generated certificates."""

from hpcc.identity._key_ring import KeyRing, KeyRingError, RingKey, Sealer, derive_secret
from hpcc.identity._keys import (
    key_id,
    load_or_create_secret,
    load_or_create_signing_key,
    load_or_create_tls,
    read_secret_file,
)
from hpcc.identity._login_file import (
    FarmProfile,
    Login,
    load_login_or_none,
    load_profile,
    profile_text,
    read_own_file,
)
from hpcc.identity._login_source import (
    LoginSource,
    read_client_secret,
    read_token_file,
    store_login,
)
from hpcc.identity._oidc_grants import DeviceCode, Grants, RefusedError, Tokens
from hpcc.identity._oidc_http import ProviderError, ProviderHttp, check_provider_url
from hpcc.identity._oidc_keys import ALGORITHMS, KeyCache, KeyCacheLimits
from hpcc.identity._oidc_provider import Provider, discover
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
from hpcc.identity._proof import KEY_BYTES, ProofKey, check_proof
from hpcc.identity._result_keys import ResultKeys
from hpcc.identity._results import (
    ResultError,
    ResultSigner,
    check_possession,
    check_result,
    result_key_id,
    verify_result,
)
from hpcc.identity._session_token import (
    SessionClaims,
    SessionTokenError,
    open_session_token,
    seal_session,
)
from hpcc.identity._tls import MAX_CERTIFICATE_BYTES, PinnedPeer, TlsIdentity, certificate_id
from hpcc.identity._token import (
    MAX_LIFETIME_SECONDS,
    MAX_PRINCIPAL_CHARS,
    MAX_TOKEN_CHARS,
    RouteClaims,
    RouteQuotas,
    TokenError,
    TokenSigner,
    TokenVerifier,
)

__all__ = [
    "ALGORITHMS",
    "DEFAULT_ALGORITHMS",
    "KEY_BYTES",
    "MAX_CERTIFICATE_BYTES",
    "MAX_IDP_TOKEN_CHARS",
    "MAX_LIFETIME_SECONDS",
    "MAX_PRINCIPAL_CHARS",
    "MAX_TOKEN_CHARS",
    "DeviceCode",
    "FarmProfile",
    "Grants",
    "IdentityPolicy",
    "IdpIdentity",
    "IdpTokenError",
    "KeyCache",
    "KeyCacheLimits",
    "KeyRing",
    "KeyRingError",
    "Login",
    "LoginSource",
    "PinnedPeer",
    "ProofKey",
    "Provider",
    "ProviderError",
    "ProviderHttp",
    "RefusedError",
    "ResultError",
    "ResultKeys",
    "ResultSigner",
    "RingKey",
    "RouteClaims",
    "RouteQuotas",
    "Sealer",
    "SessionClaims",
    "SessionTokenError",
    "TlsIdentity",
    "TokenError",
    "TokenSigner",
    "TokenVerifier",
    "Tokens",
    "certificate_id",
    "check_possession",
    "check_proof",
    "check_provider_url",
    "check_result",
    "derive_secret",
    "discover",
    "key_id",
    "load_login_or_none",
    "load_or_create_secret",
    "load_or_create_signing_key",
    "load_or_create_tls",
    "load_profile",
    "open_session_token",
    "peek_claims",
    "profile_text",
    "read_client_secret",
    "read_header",
    "read_own_file",
    "read_secret_file",
    "read_token_file",
    "result_key_id",
    "seal_session",
    "store_login",
    "verify_idp_token",
    "verify_result",
]
