"""`hpcc scheduler check-tenants FILE`: what a scheduler would make of a tenants table."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action below `hpcc scheduler`."""
    check = actions.add_parser(
        "check-tenants",
        help="check a tenants table and say what it means",
        description=_check.__doc__,
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(handler=_check)


def _check(args: argparse.Namespace) -> int:
    """Read a tenants table as the scheduler does; exit status 2 and one line when it is wrong."""
    from hpcc.scheduler.tenants.file import load_tenants

    tenants, _ = load_tenants(args.file.absolute())
    for tenant, policy in sorted(tenants.items()):
        identity = policy.identity
        assert identity is not None, "a table has no static tenant"
        print(f"{tenant}")
        print(f"  tokens:    of {identity.issuer} for {identity.audience}")
        who = [f"clients {', '.join(identity.client_ids)}"] if identity.client_ids else []
        who += [f"{name} = {' or '.join(values)}" for name, values in identity.claims]
        print(f"  only:      {'; '.join(who)}")
        print(f"  isolation: {policy.minimum_isolation} or stronger, reuse {policy.guest_reuse}")
        print(f"  images:    {len(policy.images)}")
        if any(rule.digest is None for rule in policy.images):
            print(
                "  note:      a pattern looks at the name that a client writes; what is sure is a"
                " digest, and which images the workers have"
            )
    count = len(tenants)
    print(f"{count} tenant{'s' * (count > 1)}, nothing wrong")
    return 0
