"""What follows from a difference between this machine's compiler and the image's.

The stricter of the tenant's policy and the user's setting counts, for parity and for fallback.
"""

from __future__ import annotations

from typing import NamedTuple

from hpcc.config.farm_session import FarmSession
from hpcc.core import (
    CallerError,
    ClientPolicy,
    Fallback,
    Finding,
    ImageRef,
    Parity,
    Toolchain,
    compare,
    parse_toolchains,
    sentence,
    unknown_sentence,
)


class ParityVerdict(NamedTuple):
    """What a comparison means for a compile. `text` is the sentence for a person.

    It is "" if nothing differs. An image that no worker has understood differs from nothing: the
    compile goes to the farm, and `text` explains why nothing was compared.
    """

    parity: Parity
    finding: Finding
    text: str
    is_image_unknown: bool = False

    @property
    def refuses(self) -> bool:
        """Report whether the compile must not go to the farm."""
        return self.parity == "refuse" and self.finding.level.differs

    @property
    def warns(self) -> bool:
        """Report whether the user gets a warning; the compile goes to the farm."""
        return self.parity == "warn" and self.finding.level.differs


class EffectivePolicy(NamedTuple):
    """The settings in force, and whether the tenant's policy made fallback stricter."""

    fallback: Fallback
    parity: Parity
    is_tenants_fallback: bool


def effective_policy(
    session: FarmSession | None, *, fallback: Fallback, parity: Parity
) -> EffectivePolicy:
    """Combine the user's settings with the policy of the last login; the stricter ones count."""
    policy = ClientPolicy() if session is None else session.policy
    strict = policy.stricter(fallback=fallback, parity=parity)
    return EffectivePolicy(*strict, is_tenants_fallback=strict[0] != fallback)


def forbidden_text(policy: EffectivePolicy, reason: str, message: str) -> bytes:
    """Return what a user reads whose compile was not made locally because a setting forbids it."""
    where = (
        "for this tenant, by the farm's operator" if policy.is_tenants_fallback else "in hpcc.toml"
    )
    text = (
        f"hpcc: not compiled remotely ({reason}): {message}\n"
        f'hpcc: local fallback is forbidden by `fallback = "never"` {where}\n'
    )
    return text.encode("utf-8", "replace")


def parity_verdict(
    session: FarmSession | None, parity: Parity, name: str, host: Toolchain | None, image: ImageRef
) -> ParityVerdict:
    """Compare the host's compiler with the image's, as the last login described it.

    Before the first login nothing is refused. `name` is the compiler as the user spelled it.
    """
    compilers = None if session is None else session.compilers
    finding = compare(name, host, compilers)
    if session is not None and compilers is None and host is not None and parity != "ignore":
        return ParityVerdict(parity, finding, unknown_sentence(name, image), is_image_unknown=True)
    return ParityVerdict(parity, finding, sentence(finding, image))


def toolchain_of(text: str) -> Toolchain | None:
    """Parse the compiler that a request carries; None if it is empty or malformed."""
    try:
        found = parse_toolchains(text) if text else ()
    except CallerError:
        return None
    return found[0] if found else None
