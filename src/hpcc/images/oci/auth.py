"""Registry logins: reads the files of `docker login`, and the challenges of registries.

Formats: Docker `config.json`; distribution specification, "Token Authentication"; RFC 9110
section 11. No error text contains a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from hpcc.core import CallerError, IntegrityError

_MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_CHALLENGE_CHARS: Final = 4096
_MAX_TOKEN_CHARS: Final = 64 << 10
MAX_TOKEN_ANSWER_BYTES: Final = 1 << 20
_PARAMETER: Final = re.compile(r'([a-z_]+)="([^"\\]*)"')
# Token68 of RFC 6750, and what registries send in practice.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
_DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """A user and a password. The password is not in the repr."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """Return the value of an `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Logins:
    """Logins by registry host; `helpers` are hosts whose login a helper program stores."""

    by_host: Mapping[str, RegistryLogin] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()

    def find(self, host: str) -> RegistryLogin | None:
        """Return the login of a host, or None."""
        return self.by_host.get(host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The login that a 401 asks for. `scheme` is "basic" or "bearer"."""

    scheme: str
    realm: str = ""
    service: str = ""

    def token_url(self, repository: str) -> str:
        """Return the URL of a token for pulling `repository`, and for nothing else."""
        query = {"scope": f"repository:{repository}:pull"}
        if self.service:
            query["service"] = self.service
        return f"{self.realm}{'&' if '?' in self.realm else '?'}{urlencode(query)}"


def login_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files in which docker and podman store logins; earlier ones take precedence."""
    found = []
    if directory := env.get("DOCKER_CONFIG", ""):
        found.append(Path(directory, "config.json"))
    elif home := env.get("HOME", ""):
        found.append(Path(home, ".docker", "config.json"))
    if runtime := env.get("XDG_RUNTIME_DIR", ""):
        found.append(Path(runtime, "containers", "auth.json"))
    return tuple(found)


def load_logins(files: Iterable[Path]) -> Logins:
    """Read login files, of which the earlier ones take precedence; absent ones are skipped.

    Raises:
        CallerError: a file exists and cannot be read or parsed.
    """
    logins: dict[str, RegistryLogin] = {}
    helpers: set[str] = set()
    for path in files:
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_CONFIG_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CallerError(f"cannot read {path}: {error.strerror}", reason="logins") from error
        table = _table(raw, path)
        for key, entry in _items(table.get("auths")):
            host = _host_of_key(key)
            login = _login_or_none(entry)
            if login is not None:
                logins.setdefault(host, login)
            elif table.get("credsStore"):
                helpers.add(host)
        helpers.update(_host_of_key(key) for key, _ in _items(table.get("credHelpers")))
    return Logins(logins, frozenset(helpers))


def parse_challenges(headers: Iterable[str], *, registry: str) -> Challenge:
    """Return the challenge to answer from the `WWW-Authenticate` headers of a 401.

    A bearer challenge is preferred.

    Raises:
        IntegrityError: no header is usable, or sending a login to the realm would be unsafe.
    """
    basic: Challenge | None = None
    for header in headers:
        text = header[:_MAX_CHALLENGE_CHARS].strip()
        scheme, _, rest = text.partition(" ")
        values: dict[str, str] = dict(_PARAMETER.findall(rest))
        if scheme.lower() == "bearer" and "realm" in values:
            _check_realm(values["realm"], registry)
            return Challenge(
                scheme="bearer", realm=values["realm"], service=values.get("service", "")
            )
        if scheme.lower() == "basic":
            basic = Challenge(scheme="basic")
    if basic is None:
        raise IntegrityError(
            f"registry {registry} asks for a login in a way that hpcc does not support",
            reason="registry-auth",
        )
    return basic


def parse_token(raw: bytes, *, registry: str) -> str:
    """Return the bearer token in a token server's answer.

    Raises:
        IntegrityError: the answer has no token that can be put into a header.
    """
    try:
        table = json.loads(raw)
        token = table.get("token") or table.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or len(token) > _MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
        raise IntegrityError(
            f"the token server of registry {registry} sent no usable token",
            reason="registry-auth",
        )
    return token


def is_loopback(host: str | None) -> bool:
    """Return whether a host name (without a port) can only be this machine."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_realm(realm: str, registry: str) -> None:
    try:
        url = urlsplit(realm)
        host, userinfo = url.hostname, url.username
    except ValueError:
        host, userinfo = None, None
    registry_host = urlsplit(f"//{registry}").hostname
    is_safe = host is not None and (
        url.scheme == "https"
        or (url.scheme == "http" and is_loopback(host) and is_loopback(registry_host))
    )
    if not is_safe or userinfo is not None:
        raise IntegrityError(
            f"registry {registry} names a token server that is not https: refused",
            reason="registry-realm",
        )


def _table(raw: bytes, path: Path) -> Mapping[str, object]:
    try:
        table = json.loads(raw) if len(raw) <= _MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise CallerError(f"{path} is not a usable login file (JSON)", reason="logins")
    return table


def _items(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, dict) else []


def _host_of_key(key: str) -> str:
    if key in {_DOCKER_HUB_KEY, "index.docker.io", "registry-1.docker.io"}:
        return _DOCKER_HUB
    bare = key.removeprefix("https://").removeprefix("http://")
    return bare.partition("/")[0]


def _login_or_none(entry: object) -> RegistryLogin | None:
    text = entry.get("auth") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text:
        return None
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return RegistryLogin(user, password) if colon else None
