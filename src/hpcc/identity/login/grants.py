"""OAuth grants that return tokens: device code (RFC 8628), refresh, client credentials; revocation.

There is no password grant: users type passwords only into the provider's own page.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hpcc.core import CallerError, HpccError, IntegrityError
from hpcc.identity.login.file import FarmProfile
from hpcc.identity.oidc.http import (
    ProviderError,
    ProviderHttp,
    ProviderResponse,
    check_provider_url,
)
from hpcc.identity.oidc.provider import Provider
from hpcc.identity.oidc.verify import MAX_IDP_TOKEN_CHARS, IdpTokenError, peek_claims
from hpcc.ports import Clock

MAX_ANSWER_BYTES: Final = 64 << 10
MAX_REFRESH_TOKEN_CHARS: Final = 8 << 10
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_DEFAULT_INTERVAL_SECONDS: Final = 5.0
_SLOWER_BY_SECONDS: Final = 5.0
_MAX_INTERVAL_SECONDS: Final = 60.0
# A limit on the provider's value: nobody types a code half an hour after it was shown.
_MAX_WAIT_SECONDS: Final = 1800.0
# Times in milliseconds stay below this until long after the year 10000; larger is not a time.
_MAX_NUMBER: Final = 1 << 53
_OK: Final = 200
_ERROR: Final = re.compile(r"[a-z_]{1,64}")
_TERMINAL_TEXT: Final = re.compile(r"[\x21-\x7e]{1,512}")


class RefusedError(CallerError):
    """The identity provider refused; `code` is its OAuth error code."""

    default_reason = "login-refused"

    def __init__(self, message: str, *, code: str, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The result of a grant: `token` for the scheduler, and its end (seconds since the epoch)."""

    token: str = field(repr=False)
    expires_at: float
    refresh_token: str = field(default="", repr=False)
    principal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What a person needs to confirm a login, and the values to poll for the answer."""

    user_code: str
    verification_uri: str
    # The URI that includes the code; empty if the provider offers none.
    complete_uri: str
    device_code: str = field(repr=False)
    verifier: str = field(repr=False)
    interval_seconds: float
    deadline: float


class Grants:
    """One client at one provider. `provider` is the discovery result of the profile's issuer."""

    def __init__(
        self, http: ProviderHttp, provider: Provider, profile: FarmProfile, clock: Clock
    ) -> None:
        self._http, self._provider = http, provider
        self._profile, self._clock = profile, clock

    async def device_code(self) -> DeviceCode:
        """Request a code that a person confirms in any browser.

        Raises:
            CallerError: the provider has no device login, or refuses the client.
            ProviderError, IntegrityError: it does not answer, or its answer is malformed.
        """
        if not self._provider.device_endpoint:
            raise CallerError(
                f"{self._provider.issuer} offers no login by device code: ask its operator to"
                " enable it for the client, or use a token file",
                reason="login-method",
            )
        verifier = secrets.token_urlsafe(48)
        form = {"client_id": self._profile.client_id, **self._wanted()}
        if self._provider.has_pkce:
            digest = hashlib.sha256(verifier.encode()).digest()
            form["code_challenge"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            form["code_challenge_method"] = "S256"
        answer = await self._post(self._provider.device_endpoint, form)
        return self._read_device(_accepted(answer), verifier)

    def _read_device(self, body: Mapping[str, object], verifier: str) -> DeviceCode:
        interval = _number_or_none(body.get("interval", _DEFAULT_INTERVAL_SECONDS))
        lasts = _number_or_none(body.get("expires_in", _MAX_WAIT_SECONDS))
        device_code = body.get("device_code")
        if (
            interval is None
            or lasts is None
            or not isinstance(device_code, str)
            or not 0 < len(device_code) <= MAX_REFRESH_TOKEN_CHARS
        ):
            raise IntegrityError(
                "the identity provider returned no device code", reason="idp-answer"
            )
        return DeviceCode(
            user_code=_shown(body, "user_code"),
            verification_uri=_page(body, "verification_uri", self._provider.issuer),
            complete_uri=(
                _page(body, "verification_uri_complete", self._provider.issuer)
                if "verification_uri_complete" in body
                else ""
            ),
            device_code=device_code,
            verifier=verifier,
            interval_seconds=min(max(interval, 1.0), _MAX_INTERVAL_SECONDS),
            deadline=self._clock.monotonic() + min(max(lasts, 0.0), _MAX_WAIT_SECONDS),
        )

    async def wait_device(self, code: DeviceCode) -> Tokens:
        """Poll until the person has answered; return the tokens.

        Raises:
            RefusedError: the person refused, or took too long.
            IntegrityError: the provider's answer is malformed.
        """
        form = {
            "grant_type": _DEVICE_GRANT,
            "device_code": code.device_code,
            "client_id": self._profile.client_id,
            "code_verifier": code.verifier,
        }
        interval = code.interval_seconds
        while True:
            await self._clock.sleep(interval)
            if self._clock.monotonic() > code.deadline:
                raise RefusedError("the code was not confirmed in time", code="expired_token")
            try:
                answer = await self._post(self._provider.token_endpoint, form)
                return self._tokens(_accepted(answer))
            except ProviderError:
                # RFC 8628, 3.5: clients should also poll less often after a connection timeout.
                interval = min(interval * 2, _MAX_INTERVAL_SECONDS)
            except RefusedError as error:
                if error.code == "slow_down":
                    interval = min(interval + _SLOWER_BY_SECONDS, _MAX_INTERVAL_SECONDS)
                elif error.code != "authorization_pending":
                    raise

    async def refresh(self, refresh_token: str) -> Tokens:
        """Return the next tokens; `Tokens.refresh_token` replaces the old one.

        Raises:
            RefusedError: the login has ended.
            ProviderError, IntegrityError: the provider does not answer, or malformed.
        """
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self._profile.client_id,
        }
        if self._profile.resource:
            form["resource"] = self._profile.resource
        tokens = self._tokens(_accepted(await self._post(self._provider.token_endpoint, form)))
        # A provider that does not rotate refresh tokens sends none: the old one stays valid.
        return Tokens(
            token=tokens.token,
            expires_at=tokens.expires_at,
            refresh_token=tokens.refresh_token or refresh_token,
            principal=tokens.principal,
        )

    async def client_credentials(self, secret: str) -> Tokens:
        """Return an access token for a program that has a client secret.

        Raises:
            RefusedError: the client or its secret is wrong.
            ProviderError, IntegrityError: the provider does not answer, or malformed.
        """
        form = {"grant_type": "client_credentials"}
        scopes = [s for s in self._profile.scopes if s not in {"openid", "offline_access"}]
        if scopes:
            form["scope"] = " ".join(scopes)
        if self._profile.resource:
            form["resource"] = self._profile.resource
        answer = await self._http.post(
            self._endpoint(self._provider.token_endpoint),
            form,
            basic=(self._profile.client_id, secret),
            max_bytes=MAX_ANSWER_BYTES,
            issuer=self._provider.issuer,
        )
        return self._tokens(_accepted(answer), kind="access")

    async def revoke(self, refresh_token: str) -> bool:
        """Revoke a login at the provider; return whether the provider confirmed it."""
        if not self._provider.revocation_endpoint or not refresh_token:
            return False
        form = {
            "token": refresh_token,
            "token_type_hint": "refresh_token",
            "client_id": self._profile.client_id,
        }
        try:
            answer = await self._http.post(
                self._provider.revocation_endpoint,
                form,
                basic=None,
                max_bytes=MAX_ANSWER_BYTES,
                issuer=self._provider.issuer,
            )
        except HpccError:
            return False
        return answer.status == _OK

    def _wanted(self) -> dict[str, str]:
        form = {"scope": " ".join(self._profile.scopes)}
        if self._profile.resource:
            form["resource"] = self._profile.resource
        return form

    async def _post(self, url: str, form: Mapping[str, str]) -> ProviderResponse:
        return await self._http.post(
            self._endpoint(url),
            form,
            basic=None,
            max_bytes=MAX_ANSWER_BYTES,
            issuer=self._provider.issuer,
        )

    def _endpoint(self, url: str) -> str:
        if not url:
            raise IntegrityError(
                f"{self._provider.issuer} names no token endpoint", reason="idp-answer"
            )
        return url

    def _tokens(self, body: Mapping[str, object], kind: str = "") -> Tokens:
        kind = kind or self._profile.credential
        token, refresh = body.get(f"{kind}_token"), body.get("refresh_token", "")
        if not isinstance(token, str) or not 0 < len(token) <= MAX_IDP_TOKEN_CHARS:
            raise IntegrityError(
                f"the identity provider gives no {kind} token that can be used"
                f" (at most {MAX_IDP_TOKEN_CHARS} characters)",
                reason="idp-answer",
            )
        if not isinstance(refresh, str) or len(refresh) > MAX_REFRESH_TOKEN_CHARS:
            raise IntegrityError("the refresh token is malformed", reason="idp-answer")
        try:
            claims = peek_claims(token)
        except IdpTokenError as error:
            raise IntegrityError(
                f"the provider's {kind} token is not a JWT, so no scheduler can check it: name a"
                " `resource` in the farm file, or set credential = 'id'",
                reason="idp-answer",
            ) from error
        expires_at = _number_or_none(claims.get("exp"))
        if claims.get("iss") != self._provider.issuer or expires_at is None:
            raise IntegrityError("the token is of another issuer", reason="idp-issuer")
        who = claims.get("sub")
        return Tokens(
            token=token,
            expires_at=expires_at,
            refresh_token=refresh,
            principal=who if isinstance(who, str) and who.isprintable() else "",
        )


def _number_or_none(value: object) -> float | None:
    """Return a number as a float; None for other types, NaN, and values too large for a time.

    NaN compares as neither early nor late, so waiting for it would never end. A huge int does not
    fit a float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _MAX_NUMBER else None


def _accepted(answer: ProviderResponse) -> Mapping[str, object]:
    if answer.status == _OK:
        return answer.body
    code = answer.body.get("error")
    word = code if isinstance(code, str) and _ERROR.fullmatch(code) else "no_reason"
    text = {
        "access_denied": "the login was declined",
        "expired_token": "the code was not confirmed in time",
        "invalid_grant": "the login has ended: run `hpcc login`",
    }.get(word, f"the identity provider refuses: {word} (status {answer.status})")
    raise RefusedError(text, code=word)


def _shown(body: Mapping[str, object], name: str) -> str:
    """Return a text for a terminal, free of characters that move the cursor or hide text."""
    value = body.get(name)
    if not isinstance(value, str) or not _TERMINAL_TEXT.fullmatch(value.replace(" ", "-")):
        raise IntegrityError(f"the identity provider gives no {name}", reason="idp-answer")
    return value


def _page(body: Mapping[str, object], name: str, issuer: str) -> str:
    # RFC 8628 names it verification_uri; some providers still send verification_url.
    text = _shown(body, name if name in body else name.replace("uri", "url"))
    try:
        return check_provider_url(text, issuer=issuer)
    except CallerError as error:
        raise IntegrityError(f"{name}: {error}", reason="idp-url") from error
