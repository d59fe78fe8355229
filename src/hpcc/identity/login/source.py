"""The user's current token: cached while valid, renewed early, by one process at a time."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.files import lock_now, open_file, open_shared
from hpcc.identity.login.file import (
    Login,
    load_login_or_none,
    read_own_file,
    save_login,
)
from hpcc.identity.login.grants import Grants, RefusedError, Tokens
from hpcc.identity.oidc.http import ProviderHttp
from hpcc.identity.oidc.provider import discover
from hpcc.identity.oidc.verify import MAX_IDP_TOKEN_CHARS, IdpTokenError, peek_claims
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
MAX_SECRET_CHARS: Final = 4096
# Calls made with a token should end before the token does. Half its lifetime if that is shorter.
RENEW_BEFORE_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 10.0
_LOCK_POLLS: Final = 200
_LOCK_POLL_SECONDS: Final = 0.1
_LOGOUT_POLLS: Final = 10


class LoginSource:
    """Returns the current token of a login file. Several processes may use the same file."""

    def __init__(self, path: Path, clock: Clock, *, http: ProviderHttp | None = None) -> None:
        self._path, self._clock, self._http = path, clock, http
        self._stamp: tuple[int, ...] = ()
        self._login: Login | None = None
        self._retry_at = float("-inf")
        self._failure: HpccError | None = None

    async def token(self) -> str:
        """Return a valid token for the scheduler.

        Raises:
            CallerError: nobody is logged in, or the login has ended; `hpcc login` fixes both.
            InfrastructureError: the token must be renewed, and the provider does not answer.
        """
        login = self._read()
        if login.method == "token-file":
            return self._from_file(login)
        if self._is_due(login):
            login = await self._renewed(login)
        if login.expires_at <= self._clock.now():
            raise _ended(login)
        return login.token

    def _read(self) -> Login:
        try:
            status = os.lstat(self._path)
        except OSError as error:
            raise _nobody() from error
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if self._login is None or stamp != self._stamp:
            self._login = load_login_or_none(self._path)
            self._stamp, self._failure = stamp, None
        if self._login is None:
            raise _nobody()
        return self._login

    def _is_due(self, login: Login) -> bool:
        life = max(login.expires_at - login.obtained_at, 0.0)
        before = min(RENEW_BEFORE_SECONDS, life / 2)
        return not login.ended and self._clock.now() >= login.expires_at - before

    async def _renewed(self, login: Login) -> Login:
        if self._failure is None or self._clock.monotonic() >= self._retry_at:
            try:
                return await self._renew()
            except HpccError as error:
                if error.reason == "login-none":
                    raise
                self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
                self._failure = error
                _log.warning("the login is not renewed now: %s", error)
        if login.expires_at > self._clock.now():
            return login
        raise self._failure

    async def _renew(self) -> Login:
        async with _locked(self._path, self._clock):
            # Another process may have renewed it; its refresh token has replaced the one here.
            self._stamp = ()
            login = self._read()
            if not self._is_due(login):
                return login
            try:
                grants = await self._grants(login)
                tokens = await self._ask(grants, login)
            except RefusedError as error:
                if login.method != "device":
                    raise
                # Stored in the file, so that no process tries again before the next login.
                ended = replace(login, ended=str(error), refresh_token="")
                self._check_still_there()
                save_login(self._path, ended)
                _log.warning("the login cannot be renewed: %s", error)
                return ended
            try:
                self._check_still_there()
            except CallerError:
                # After a logout, the new tokens must not stay valid.
                await grants.revoke(tokens.refresh_token)
                raise
            renewed = replace(
                login,
                token=tokens.token,
                obtained_at=self._clock.now(),
                expires_at=tokens.expires_at,
                refresh_token=tokens.refresh_token,
                principal=tokens.principal or login.principal,
            )
            save_login(self._path, renewed)
            self._failure = None
            return renewed

    def _check_still_there(self) -> None:
        """Raise if `hpcc logout` removed the login during the renewal; a logout does not wait."""
        if not self._path.exists():
            raise _nobody()

    async def _grants(self, login: Login) -> Grants:
        profile = login.farm
        http = self._http or ProviderHttp(proxy=login.proxy, ca_file=login.ca_file)
        return Grants(http, await discover(http, profile.issuer), profile, self._clock)

    async def _ask(self, grants: Grants, login: Login) -> Tokens:
        if login.method == "client-credentials":
            return await grants.client_credentials(read_client_secret(Path(login.secret_file)))
        if not login.refresh_token:
            raise RefusedError("the login has ended: run `hpcc login`", code="invalid_grant")
        return await grants.refresh(login.refresh_token)

    def _from_file(self, login: Login) -> str:
        token = read_token_file(Path(login.token_file))
        try:
            expires_at = peek_claims(token).get("exp")
        except IdpTokenError as error:
            raise CallerError(
                f"{login.token_file} holds no JWT", reason="login-token-file"
            ) from error
        if not isinstance(expires_at, int | float) or expires_at <= self._clock.now():
            raise CallerError(
                f"the token in {login.token_file} has expired, and no newer one was written",
                reason="login-token-file",
            )
        return token


async def store_login(path: Path, login: Login, clock: Clock) -> None:
    """Replace login.json while no process renews it.

    Raises:
        InfrastructureError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with _locked(path, clock):
        save_login(path, login)


async def remove_renewed(path: Path, clock: Clock) -> Login | None:
    """Remove a login that a renewal wrote during a logout; return it, so that it is revoked.

    Call this after login.json was removed. A renewal checks for the file before it writes, but the
    file may disappear between the check and the write. A renewal that still waits for its provider
    has not checked yet, so this function does not wait for it.
    """
    try:
        async with _locked(path, clock, polls=_LOGOUT_POLLS):
            return _taken(path)
    except (CallerError, InfrastructureError):
        return None


def _taken(path: Path) -> Login | None:
    try:
        return load_login_or_none(path)
    finally:
        path.unlink(missing_ok=True)


def read_client_secret(path: Path) -> str:
    """Return a client's secret from a file that only its owner can read.

    Raises:
        CallerError: the file is missing, has another owner, is readable by others, or is empty.
    """
    try:
        text = read_own_file(path, max_bytes=MAX_SECRET_CHARS).decode("utf-8", "replace").strip()
    except FileNotFoundError as error:
        raise CallerError(f"{path} does not exist", reason="login-secret-file") from error
    if not text:
        raise CallerError(f"{path} is empty", reason="login-secret-file")
    return text


def read_token_file(path: Path) -> str:
    """Return a workload's token. Whatever mounts the file sets owner and mode, as Kubernetes does.

    Raises:
        CallerError: the file is missing, not a regular file, too large, or empty.
    """
    try:
        # Links are accepted, because Kubernetes mounts them. A FIFO must not block the daemon.
        descriptor = open_shared(path)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            raw = os.read(descriptor, MAX_IDP_TOKEN_CHARS + 2) if is_file else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CallerError(
            f"cannot read {path}: {error.strerror}", reason="login-token-file"
        ) from error
    if not is_file:
        raise CallerError(f"{path} is not a regular file", reason="login-token-file")
    text = raw.decode("ascii", "replace").strip()
    if not 0 < len(text) <= MAX_IDP_TOKEN_CHARS:
        raise CallerError(f"{path} holds no token", reason="login-token-file")
    return text


def _nobody() -> CallerError:
    return CallerError("not logged in: run `hpcc login`", reason="login-none")


def _ended(login: Login) -> CallerError:
    text = login.ended or "the provider's newest token has expired by this machine's clock"
    return CallerError(text, reason="login-expired")


@asynccontextmanager
async def _locked(path: Path, clock: Clock, *, polls: int = _LOCK_POLLS) -> AsyncIterator[None]:
    """Allow one renewing process at a time: providers end a login if a refresh token is reused."""
    try:
        descriptor = open_file(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise InfrastructureError(f"cannot lock {path}: {error.strerror}") from error
    try:
        for _ in range(polls):
            try:
                lock_now(descriptor)
                break
            except BlockingIOError:
                await clock.sleep(_LOCK_POLL_SECONDS)
        else:
            raise InfrastructureError("another process renews the login", reason="login-busy")
        yield
    finally:
        os.close(descriptor)
