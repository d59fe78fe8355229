"""`hpcc scheduler check-tenants FILE`: checks and explains a tenants table."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcc.cli.base.terminal import emit


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action below `hpcc scheduler`."""
    check = actions.add_parser(
        "check-tenants",
        help="check a tenants table and show what it means",
        description=_check.__doc__,
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(handler=_check)


def _check(args: argparse.Namespace) -> int:
    """Read a tenants table as the scheduler does; print one line and exit with 2 if it is wrong."""
    from hpcc.scheduler.tenants.file import load_tenants

    tenants, _ = load_tenants(args.file.absolute())
    for tenant, policy in sorted(tenants.items()):
        identity = policy.identity
        assert identity is not None, "a table has no static tenant"
        emit(f"{tenant}")
        emit(f"  tokens:    of {identity.issuer} for {identity.audience}")
        who = [f"clients {', '.join(identity.client_ids)}"] if identity.client_ids else []
        who += [f"{name} = {' or '.join(values)}" for name, values in identity.claims]
        emit(f"  only:      {'; '.join(who)}")
        emit(f"  isolation: {policy.minimum_isolation} or stronger, reuse {policy.guest_reuse}")
        emit(f"  images:    {len(policy.images)}")
        if any(rule.digest is None for rule in policy.images):
            emit(
                "  note:      a pattern checks only the name that a client writes; digests, and the"
                " images that the workers have, are certain"
            )
    count = len(tenants)
    emit(f"{count} tenant{'s' * (count > 1)}, nothing wrong")
    return 0
