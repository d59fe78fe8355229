"""Logins: how to reach a farm as a user, and the user's tokens, in a private file.

`login.json` (mode 0600, owned by the user) is replaced as a whole at each renewal. The operator's
farm file (TOML) names the farm, the identity provider and the client.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.config.service_file import parse_service_file
from hpcc.config.toml import read_toml
from hpcc.core import CallerError, ImageRef, TenantId
from hpcc.files import NONBLOCK, access_of, open_file, privacy_remedy
from hpcc.identity.oidc.http import check_provider_url
from hpcc.identity.tls import PinnedPeer

MAX_LOGIN_FILE_BYTES: Final = 256 << 10
_METHODS: Final = ("device", "client-credentials", "token-file")
_TOKENS: Final = ("id", "access")


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmProfile:
    """The operator's farm file.

    `credential`: the token that is sent to the scheduler, the ID token or an access token that is a
    JWT. `resource` names the farm to providers that require it (RFC 8707).
    """

    scheduler: str
    scheduler_certificate: str
    tenant: str
    issuer: str
    client_id: str
    image: str
    isolation: str = ""
    credential: str = "id"
    resource: str = ""
    scopes: tuple[str, ...] = ("openid", "offline_access")

    def __post_init__(self) -> None:
        """Reject values that cannot work.

        Raises:
            CallerError: a name, URL, image or certificate is malformed.
        """
        TenantId(self.tenant)
        ImageRef.parse(self.image)
        check_provider_url(self.issuer)
        PinnedPeer.from_pem(self.scheduler_certificate.encode())
        if self.credential not in _TOKENS:
            raise CallerError(
                f"credential must be one of {', '.join(_TOKENS)}", reason="farm-profile"
            )
        if not self.client_id.isprintable() or not self.client_id:
            raise CallerError("client_id must not be empty", reason="farm-profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One login. Times are seconds since the epoch, UTC.

    `secret_file` and `token_file` are read when a token is needed, and their content is not stored
    here. `ended` holds the reason why the login can no longer be renewed.
    """

    profile: str
    method: str
    token: str = field(default="", repr=False)
    obtained_at: float = 0.0
    expires_at: float = 0.0
    refresh_token: str = field(default="", repr=False)
    secret_file: str = ""
    token_file: str = ""
    principal: str = ""
    # Stored here because the daemon does not have the environment of the user's shell.
    proxy: str = ""
    ca_file: str = ""
    ended: str = ""

    def __post_init__(self) -> None:
        """Reject a login without a known method."""
        if self.method not in _METHODS:
            raise CallerError("login.json names no method", reason="login-file")

    @property
    def farm(self) -> FarmProfile:
        return parse_service_file(self.profile.encode(), FarmProfile, source="login.json")


def load_login_or_none(path: Path) -> Login | None:
    """Return the login in login.json; None when nobody is logged in.

    Raises:
        CallerError: the file has another owner, is readable by others, is a link, or is damaged.
    """
    try:
        raw = read_own_file(path, max_bytes=MAX_LOGIN_FILE_BYTES)
    except FileNotFoundError:
        return None
    try:
        login = parse_service_file(raw, Login, source=str(path))
        assert login.farm.tenant
    except CallerError as error:
        raise CallerError(
            f"{path} is damaged ({error}): run `hpcc logout`, then `hpcc login`",
            reason="login-file",
        ) from error
    return login


def save_login(path: Path, login: Login) -> None:
    """Replace login.json; see `write_private_file`."""
    write_private_file(path, json.dumps(asdict(login), indent=1, sort_keys=True).encode())


def profile_text(profile: FarmProfile) -> str:
    """Return a profile as JSON, the form of `Login.profile`."""
    return json.dumps(asdict(profile), sort_keys=True)


def read_own_file(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a secret file that only this user owns and can read.

    Raises:
        FileNotFoundError: the file does not exist.
        CallerError: another owner, readable by others, not an ordinary file, or too large.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY | NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            access = access_of(descriptor)
            raw = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="login-file") from error
    if not access.is_regular or not access.is_own:
        raise CallerError(
            f"{path} is not a file of your own: run this as the file's owner", reason="login-file"
        )
    if not access.is_private:
        raise CallerError(
            f"others can read {path}, which holds a secret: {privacy_remedy(path)}",
            reason="login-file",
        )
    if len(raw) > max_bytes:
        raise CallerError(f"{path} is too large", reason="login-file")
    return raw


def load_profile(path: Path) -> FarmProfile:
    """Return the profile of an operator's farm file (TOML).

    Raises:
        CallerError: unreadable, not TOML, or an unknown key, type or value.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_LOGIN_FILE_BYTES + 1)
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="farm-profile") from error
    try:
        if len(raw) > MAX_LOGIN_FILE_BYTES:
            raise CallerError(f"{path} is too large", reason="farm-profile")
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise CallerError(f"{path}: {error}", reason="farm-profile") from error
    table = read_toml(text, source=str(path), reason="farm-profile")
    known = {f.name: f.default is MISSING for f in fields(FarmProfile)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise CallerError(f"{path}: unknown key {key[:80]!r}; {hint}", reason="farm-profile")
    try:
        # JSON has the same types, and its parser makes the same strict checks.
        return parse_service_file(
            json.dumps(table, default=str).encode(), FarmProfile, source=str(path)
        )
    except CallerError as error:
        raise CallerError(str(error), reason="farm-profile") from error
