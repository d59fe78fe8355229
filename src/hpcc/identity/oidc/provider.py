"""An identity provider's metadata (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError, IntegrityError
from hpcc.identity.oidc.http import ProviderHttp, check_provider_url

MAX_DISCOVERY_BYTES: Final = 128 << 10
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Endpoints by use; empty where the provider has none."""

    issuer: str
    jwks_uri: str
    token_endpoint: str = ""
    device_endpoint: str = ""
    revocation_endpoint: str = ""
    # PKCE with SHA-256; a provider that does not know it ignores the parameter.
    has_pkce: bool = False


async def discover(http: ProviderHttp, issuer: str) -> Provider:
    """Fetch and check a provider's endpoints.

    Raises:
        CallerError: the issuer is not a URL that may be requested.
        ProviderError: it does not answer.
        IntegrityError: it answers for another issuer, or points where it must not.
    """
    check_provider_url(issuer)
    answer = await http.get(issuer.rstrip("/") + _WELL_KNOWN, max_bytes=MAX_DISCOVERY_BYTES)
    return parse_provider(answer.body, issuer=issuer)


def parse_provider(body: Mapping[str, object], *, issuer: str) -> Provider:
    """Return the endpoints in a discovery document that was fetched for `issuer`.

    Raises:
        IntegrityError: see `discover`.
    """
    if body.get("issuer") != issuer:
        # This also prevents one tenant's provider from answering for another's.
        raise IntegrityError(
            f"the identity provider is not {issuer}: its discovery document names another issuer",
            reason="idp-issuer",
        )
    methods = body.get("code_challenge_methods_supported")
    return Provider(
        issuer=issuer,
        jwks_uri=_url(body, "jwks_uri", issuer),
        token_endpoint=_url(body, "token_endpoint", issuer, is_optional=True),
        device_endpoint=_url(body, "device_authorization_endpoint", issuer, is_optional=True),
        revocation_endpoint=_url(body, "revocation_endpoint", issuer, is_optional=True),
        has_pkce=isinstance(methods, list) and "S256" in methods,
    )


def _url(body: Mapping[str, object], name: str, issuer: str, *, is_optional: bool = False) -> str:
    value = body.get(name)
    if value is None and is_optional:
        return ""
    if not isinstance(value, str):
        raise IntegrityError(f"the identity provider names no {name}", reason="idp-answer")
    try:
        return check_provider_url(value, issuer=issuer)
    except CallerError as error:
        raise IntegrityError(f"{name}: {error}", reason="idp-url") from error
