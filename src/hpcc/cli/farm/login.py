"""`hpcc login`, `logout` and `whoami`: this user's identity at a farm, and how long it lasts."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.lock import holder_or_none, lock_file
from hpcc.cli.base.terminal import emit
from hpcc.config.farm import Farm, load_farm_or_none
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.files import make_own_directory

if TYPE_CHECKING:
    from hpcc.identity.login.file import FarmProfile, Login
    from hpcc.identity.login.grants import DeviceCode
    from hpcc.rpc.scheduler.api import SessionGrant

_MINUTE: Final = 60
_HOUR: Final = 3600


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    login = subparsers.add_parser(
        "login", help="log in to a farm with its identity provider", description=_login.__doc__
    )
    login.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="farm file (TOML) from the farm's operator (default: that of the last login)",
    )
    how = login.add_mutually_exclusive_group()
    how.add_argument(
        "--client-secret-file",
        type=Path,
        metavar="PATH",
        help="for CI: client credentials; the secret is read from this private file when needed",
    )
    how.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help="for CI: a workload identity; the token is read from this file when needed",
    )
    how.add_argument("--browser", action="store_true", help="also open the page in a browser")
    login.set_defaults(handler=_login)
    logout = subparsers.add_parser("logout", help="end a login, here and at the identity provider")
    logout.set_defaults(handler=_logout)
    whoami = subparsers.add_parser("whoami", help="show who is logged in to which farm, until when")
    whoami.add_argument("--check", action="store_true", help="also ask the scheduler")
    whoami.set_defaults(handler=_whoami)


def _login(args: argparse.Namespace) -> int:
    """Log in: confirm a code in any browser, on any device; or in CI, with a secret or token file.

    The tokens are kept in login.json of the state directory, for you alone, and renewed before they
    end. hpcc never sees a password: you type it only into the provider's page.
    """
    from hpcc.identity.login.file import load_login_or_none, load_profile

    paths = Paths.from_env(os.environ)
    make_own_directory(paths.state)
    if holder_or_none(lock_file(paths)) is not None:
        raise CallerError(
            "hpcc is up with a farm on this machine: run `hpcc down` before you log in to another",
            reason="already-up",
        )
    if args.file is not None:
        profile = load_profile(args.file)
    else:
        known = load_login_or_none(paths.login_file)
        if known is None:
            raise CallerError(
                "which farm? run `hpcc login FILE` with the farm file from its operator",
                reason="login-none",
            )
        profile = known.farm
    asyncio.run(_login_to(paths, profile, args))
    return 0


async def _login_to(paths: Paths, profile: FarmProfile, args: argparse.Namespace) -> None:
    from hpcc.identity.login.source import read_token_file, store_login
    from hpcc.ports import SystemClock

    clock = SystemClock()
    login = await _obtain(profile, args)
    token = read_token_file(Path(login.token_file)) if login.token_file else login.token
    # Before the old login is replaced: a login that does not work must not replace it.
    try:
        said = await _ask_scheduler(profile, token, login)
    except InfrastructureError as error:
        said = None
        emit(f"hpcc: the scheduler could not be asked: {error}", file=sys.stderr)
    await store_login(paths.login_file, login, clock)
    farm = Farm(
        scheduler=profile.scheduler,
        scheduler_certificate_pem=profile.scheduler_certificate,
        tenant=profile.tenant,
        principal=login.principal or "?",
        secret="",
        image=profile.image,
        isolation=profile.isolation,
        login=str(paths.login_file),
    )
    write_private_file(paths.farm_file, farm.to_json().encode())
    emit(f"logged in to {profile.scheduler} as {login.principal or '?'} of {profile.tenant}")
    if said is not None:
        emit("the scheduler accepts it")


async def _obtain(profile: FarmProfile, args: argparse.Namespace) -> Login:
    from hpcc.identity.login.file import Login, profile_text
    from hpcc.identity.login.grants import Grants
    from hpcc.identity.login.source import read_client_secret, read_token_file
    from hpcc.identity.oidc.http import ProviderHttp
    from hpcc.identity.oidc.provider import discover
    from hpcc.identity.oidc.verify import peek_claims
    from hpcc.ports import SystemClock

    clock, text = SystemClock(), profile_text(profile)
    if args.token_file is not None:
        path = args.token_file.absolute()
        token = read_token_file(path)
        try:
            claims = peek_claims(token)
        except HpccError as error:
            raise CallerError(f"{path}: {error}", reason="login-token-file") from error
        who = claims.get("sub")
        return Login(
            profile=text,
            method="token-file",
            token_file=str(path),
            principal=who if isinstance(who, str) and who.isprintable() else "",
        )
    # Python reads the variable by itself; the daemon's environment lacks it.
    proxy, ca_file = _proxy(profile.issuer), _ca_file()
    http = ProviderHttp(proxy=proxy, ca_file=ca_file)
    grants = Grants(http, await discover(http, profile.issuer), profile, clock)
    secret_file = ""
    if args.client_secret_file is not None:
        secret_file = str(args.client_secret_file.absolute())
        tokens = await grants.client_credentials(read_client_secret(Path(secret_file)))
    else:
        code = await grants.device_code()
        _show(code, is_browser=args.browser)
        tokens = await grants.wait_device(code)
    return Login(
        profile=text,
        method="client-credentials" if secret_file else "device",
        token=tokens.token,
        obtained_at=clock.now(),
        expires_at=tokens.expires_at,
        refresh_token=tokens.refresh_token,
        secret_file=secret_file,
        principal=tokens.principal,
        proxy=proxy,
        ca_file=ca_file,
    )


def _show(code: DeviceCode, *, is_browser: bool) -> None:
    emit(f"open  {code.verification_uri}\ncode  {code.user_code}")
    if code.complete_uri:
        emit(f"or    {code.complete_uri}")
    emit("Confirm only if the page shows this code; waiting …", flush=True)
    if is_browser:
        import webbrowser

        webbrowser.open(code.complete_uri or code.verification_uri)


def _proxy(issuer: str) -> str:
    """Return this shell's proxy for the provider; the daemon's environment lacks it."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    host = urlsplit(issuer).hostname or ""
    return "" if proxy_bypass(host) else getproxies().get("https", "")


def _ca_file() -> str:
    name = os.environ.get("SSL_CERT_FILE", "")
    return str(Path(name).absolute()) if name else ""


async def _ask_scheduler(profile: FarmProfile, token: str, login: Login) -> SessionGrant:
    from hpcc import __version__
    from hpcc.core import TenantId
    from hpcc.identity.tls import PinnedPeer
    from hpcc.rpc.scheduler.client import SchedulerClient
    from hpcc.rpc.scheduler.schedulers import open_schedulers

    peer = PinnedPeer.from_pem(profile.scheduler_certificate.encode())
    async with open_schedulers(
        profile.scheduler, certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        try:
            return await SchedulerClient(channel).authenticate(
                secret=token,
                tenant=TenantId(profile.tenant),
                principal=login.principal or "?",
                client_version=__version__,
            )
        except CallerError as error:
            raise CallerError(
                f"the scheduler refuses {login.principal or 'this login'}: {error}",
                reason=error.reason,
            ) from error


def _logout(_args: argparse.Namespace) -> int:
    """End the login: revoke it at the provider, if reachable, and delete the local files."""
    from hpcc.identity.login.file import load_login_or_none
    from hpcc.identity.login.source import remove_renewed
    from hpcc.ports import SystemClock

    paths = Paths.from_env(os.environ)
    try:
        login = load_login_or_none(paths.login_file)
        farm = load_farm_or_none(paths.farm_file)
    except CallerError as error:
        emit(f"hpcc: {error}", file=sys.stderr)
        login = farm = None
    is_there = paths.login_file.is_symlink() or paths.login_file.exists()
    # First the steps that need no network.
    if farm is not None and farm.login:
        paths.farm_file.unlink(missing_ok=True)
        paths.farm_session_file.unlink(missing_ok=True)
    paths.login_file.unlink(missing_ok=True)
    if login is not None:
        login = asyncio.run(remove_renewed(paths.login_file, SystemClock())) or login
    if login is not None and login.refresh_token and not asyncio.run(_revoke(login)):
        emit("hpcc: the identity provider did not revoke the login; its session expires by itself")
    emit("logged out" if is_there else "nobody was logged in")
    return 0


async def _revoke(login: Login) -> bool:
    from hpcc.identity.login.grants import Grants
    from hpcc.identity.oidc.http import ProviderHttp
    from hpcc.identity.oidc.provider import discover
    from hpcc.ports import SystemClock

    http, profile = ProviderHttp(proxy=login.proxy, ca_file=login.ca_file), login.farm
    try:
        provider = await discover(http, profile.issuer)
    except HpccError:
        return False
    return await Grants(http, provider, profile, SystemClock()).revoke(login.refresh_token)


def _whoami(args: argparse.Namespace) -> int:
    """Print who is logged in; exit with 1 when nobody is, or the login has ended."""
    from hpcc.identity.login.file import load_login_or_none
    from hpcc.identity.login.source import LoginSource
    from hpcc.ports import SystemClock

    paths, clock = Paths.from_env(os.environ), SystemClock()
    login = load_login_or_none(paths.login_file)
    if login is None:
        farm = load_farm_or_none(paths.farm_file)
        if farm is None:
            emit("nobody is logged in: run `hpcc login FILE`, or `hpcc up` for a local farm")
            return 1
        emit(f"{farm.principal} of tenant {farm.tenant} (the farm of `hpcc up` on this machine)")
        return 0
    profile = login.farm
    emit(f"{login.principal or '?'} of tenant {profile.tenant}")
    emit(f"  farm:      {profile.scheduler}\n  provider:  {profile.issuer}")
    emit(f"  login:     {_how(login)}")
    emit(f"  token:     {_left(login, clock.now())}")
    if login.ended:
        emit(f"  ended:     {login.ended}")
    if not args.check:
        is_over = login.method == "device" and login.expires_at <= clock.now()
        return int(bool(login.ended) or (is_over and not login.refresh_token))
    token = asyncio.run(LoginSource(paths.login_file, clock).token())
    asyncio.run(_ask_scheduler(profile, token, login))
    emit("  scheduler: accepts it")
    return 0


def _how(login: Login) -> str:
    match login.method:
        case "token-file":
            return f"token file {login.token_file}"
        case "client-credentials":
            return f"client {login.farm.client_id}, secret in {login.secret_file}"
        case _:
            renews = "renewed before it ends" if login.refresh_token else "not renewable"
            return f"device code, {renews}"


def _left(login: Login, now: float) -> str:
    if login.method == "token-file":
        return "read when needed"
    seconds = int(login.expires_at - now)
    if seconds <= 0:
        return "has ended"
    if seconds >= _HOUR:
        return f"valid for {seconds // _HOUR} h {seconds % _HOUR // _MINUTE} min"
    return f"valid for {seconds // _MINUTE} min {seconds % _MINUTE} s"
