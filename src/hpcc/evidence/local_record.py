"""Statements of a client about compiles on its machine: which object, which compiler, and why here.

A statement has up to 256 compiles and one signature, of a key of the user who compiled. It is a
claim: `coverage` shows it beside an object without a worker's row, and the verdict stays no.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from hpcc.evidence.forms.dsse import IN_TOTO, check_envelope, read_envelope
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.model import DIGEST
from hpcc.evidence.statement import SITE, STATEMENT, text_of

LOCAL: Final = f"{SITE}/local/v1"
MAX_COMPILES: Final = 256
# A statement of 256 compiles whose texts all have their limit is below this.
MAX_LINE_BYTES: Final = 8 << 20
_MAX_TEXT: Final = 4096
_MAX_SIZE: Final = 1 << 50
_TEXTS: Final = (
    "build", "commandDigest", "compiler", "compilerFiles", "fallback", "finishedOn", "reason",
    "workingDirectory",
)  # fmt: skip
_MAX_WORD: Final = 256
_WORD: Final = re.compile(r"[ -~]{0,256}")
_WORDS: Final = ("commandDigest", "compilerFiles", "fallback", "finishedOn", "reason")


class LocalCompile(NamedTuple):
    """A compile that ended on a machine. Digests are SHA-256 in hex.

    `tools` is the digest of the compiler's programs and files. `reason` says why the cache had no
    result, `fallback` why no farm compiled it; both may be empty.
    """

    path: str
    digest: str
    size_bytes: int
    compiler: str
    tools: str
    command_digest: str
    cwd: str
    build: str
    reason: str
    fallback: str
    finished_on: str


def local_statement(compiles: Sequence[LocalCompile]) -> bytes:
    """Return the statement of at least one and at most `MAX_COMPILES` compiles, canonical JSON."""
    return text_of({
        "_type": STATEMENT, "predicateType": LOCAL,
        "subject": [{"name": c.path[:_MAX_TEXT], "digest": {"sha256": c.digest}} for c in compiles],
        "predicate": {"compiles": [_table(c) for c in compiles]},
    })  # fmt: skip


def _table(one: LocalCompile) -> dict[str, object]:
    return {
        "build": one.build[:_MAX_TEXT], "commandDigest": one.command_digest,
        "compiler": one.compiler[:_MAX_TEXT], "compilerFiles": one.tools,
        "fallback": _word(one.fallback), "finishedOn": one.finished_on,
        "reason": _word(one.reason), "size": one.size_bytes,
        "workingDirectory": one.cwd[:_MAX_TEXT],
    }  # fmt: skip


def _word(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text[:_MAX_WORD])


def read_local_line(line: bytes, key: bytes) -> list[LocalCompile]:
    """Return the compiles of a signed statement of this raw public key.

    Raises:
        EvidenceDamagedError: it is signed by another key, or has another form.
    """
    if len(line) > MAX_LINE_BYTES:
        raise EvidenceDamagedError("a record of local compiles is too large")
    envelope = read_envelope(line, "a record of local compiles")
    check_envelope(envelope, key, IN_TOTO, "a record of local compiles")
    try:
        return _parsed(json.loads(envelope.payload))
    except (ValueError, RecursionError) as error:
        raise EvidenceDamagedError("a record of local compiles has another form") from error


def _parsed(table: object) -> list[LocalCompile]:
    match table:
        case {
            "_type": str(kind), "predicateType": str(predicate), "subject": list(subjects),
            "predicate": {"compiles": list(compiles)},
        } if (kind, predicate) == (STATEMENT, LOCAL):  # fmt: skip
            pass
        case _:
            raise ValueError("another statement")
    if not len(subjects) == len(compiles) <= MAX_COMPILES:
        raise ValueError("another number of compiles")
    return [_compile(subject, facts) for subject, facts in zip(subjects, compiles, strict=True)]


def _compile(subject: object, facts: object) -> LocalCompile:
    match subject:
        case {"name": str(name), "digest": {"sha256": str(digest)}} if DIGEST.fullmatch(digest):
            pass
        case _:
            raise ValueError("not a file")
    if not isinstance(facts, dict) or set(facts) != {*_TEXTS, "size"}:
        raise ValueError("not a compile")
    texts = {key: facts[key] for key in _TEXTS}
    size = facts["size"]
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise ValueError("not a size")
    if not all(isinstance(t, str) and len(t) <= _MAX_TEXT for t in (name, *texts.values())):
        raise ValueError("not a text")
    if not all(_WORD.fullmatch(texts[key]) for key in _WORDS):
        raise ValueError("not a word")
    return LocalCompile(
        path=name, digest=digest, size_bytes=size, compiler=texts["compiler"],
        tools=texts["compilerFiles"], command_digest=texts["commandDigest"],
        cwd=texts["workingDirectory"], build=texts["build"], reason=texts["reason"],
        fallback=texts["fallback"], finished_on=texts["finishedOn"],
    )  # fmt: skip
