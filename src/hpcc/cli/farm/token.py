"""`hpcc token`: this user's token for tools that speak REAPI through a gateway."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hpcc.cli.base.terminal import emit
from hpcc.config.farm import Farm, load_farm_or_none
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError

# Bazel's request to a credential helper is one short object.
_MAX_REQUEST_CHARS: Final = 64 << 10
_MAX_URI_CHARS: Final = 4096
# How long a helper's answer may be kept; hpcc renews a token before it ends.
_KEEP_SECONDS: Final = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "token",
        help="print a token of your login, for Bazel and similar tools",
        description=_token.__doc__,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--bazelrc",
        type=Path,
        metavar="FILE",
        help="write a bazelrc (0600) with token, tenant and image, for `bazel --bazelrc=FILE`",
    )
    how.add_argument(
        "--credential-helper",
        metavar="HOST",
        help="answer Bazel's request on standard input, if it names this host",
    )
    parser.add_argument("verb", nargs="?", choices=["get"], help=argparse.SUPPRESS)
    parser.set_defaults(handler=_token)


def _token(args: argparse.Namespace) -> int:
    """Print a valid token of your login, renewed if necessary.

    Keep it out of command lines, because other users of the machine can read them. `--bazelrc`
    writes it into a file that only you can read.
    """
    paths = Paths.from_env(os.environ)
    farm = load_farm_or_none(paths.farm_file)
    if farm is None:
        raise CallerError("not logged in: run `hpcc login`", reason="login-none")
    if args.credential_helper is not None:
        _check_asked(sys.stdin.read(_MAX_REQUEST_CHARS + 1), args.credential_helper)
        emit(_answer(asyncio.run(_current(farm))))
        return 0
    token = asyncio.run(_current(farm))
    if args.bazelrc is not None:
        write_private_file(args.bazelrc.absolute(), _bazelrc(farm, token).encode())
        emit(f"wrote {args.bazelrc}")
        return 0
    emit(token)
    return 0


async def _current(farm: Farm) -> str:
    """Return the credential for the farm: the login's token, or the secret of `hpcc up`."""
    if not farm.login:
        return farm.secret
    from hpcc.identity.login.source import LoginSource
    from hpcc.ports import SystemClock

    return await LoginSource(Path(farm.login), SystemClock()).token()


def _bazelrc(farm: Farm, token: str) -> str:
    return (
        f"build --remote_instance_name={farm.tenant}\n"
        f"build --remote_header=hpcc-image={farm.image}\n"
        f"build --remote_default_exec_properties=container-image=docker://{farm.image}\n"
        f'build "--remote_header=authorization=Bearer {token}"\n'
    )


def _check_asked(text: str, host: str) -> None:
    """Check that a helper's request names the one host that may get the token.

    Raises:
        CallerError: it is not a request, or names another host.
    """
    try:
        asked = json.loads(text) if len(text) <= _MAX_REQUEST_CHARS else None
    except (ValueError, RecursionError):
        asked = None
    uri = asked.get("uri") if isinstance(asked, dict) else None
    if not isinstance(uri, str) or len(uri) > _MAX_URI_CHARS:
        raise CallerError("not a credential helper's request", reason="token-question")
    try:
        parts = urlsplit(uri)
        is_ours = parts.scheme in {"https", "grpcs"} and parts.hostname == host.lower()
    except ValueError:
        is_ours = False
    if not is_ours or "@" in parts.netloc:
        raise CallerError(
            f"the request is not for https://{host}: no token is given",
            reason="token-host",
        )


def _answer(token: str) -> str:
    from hpcc.ports import SystemClock

    until = datetime.fromtimestamp(SystemClock().now() + _KEEP_SECONDS, UTC)
    return json.dumps(
        {
            "headers": {"authorization": [f"Bearer {token}"]},
            "expires": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
