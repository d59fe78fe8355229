"""Resolves `-march=native` and similar flags to what they mean on this machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.tools import ask
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Bypass
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

# The command line of the compiler proper, as both drivers print it under -###.
_COMMAND: Final = re.compile(rb"^ .*(?:/cc1\w*\"? |\"-cc1\").*$", re.MULTILINE)
_MAX_REMEMBERED: Final = 256


class NativeFlags:
    """Asks once per compiler and set of flags. Thread-safe: a race only asks twice."""

    def __init__(self) -> None:
        self._known: BoundedMemo[tuple[object, ...], bytes] = BoundedMemo(_MAX_REMEMBERED)

    def resolve(
        self,
        invocation: Invocation,
        family: CompilerFamily,
        identity: bytes,
        compiler: bytes,
        env: Mapping[bytes, bytes],
    ) -> bytes | Bypass:
        """Return a digest of the flags that "native" stands for; b"" if it is not used.

        Two machines get equal digests exactly if their drivers pass equal flags to the compiler.
        """
        if not invocation.is_native:
            return b""
        question = family.native_question(invocation)
        if question is None:
            return Bypass(BypassReason.NATIVE)
        language, flags = invocation.language.value, invocation.search_arguments
        key = (identity, compiler, language, flags)
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            answer = ask([compiler, *question], env={**env, b"LC_ALL": b"C"}, cwd=b"/")
        except OSError:
            return Bypass(BypassReason.NATIVE)
        commands = _COMMAND.findall(answer.stderr)
        if answer.exit_code != 0 or not commands:
            return Bypass(BypassReason.NATIVE)
        found = self._known[key] = hashlib.sha256(encode_fields(commands)).digest()
        return found
