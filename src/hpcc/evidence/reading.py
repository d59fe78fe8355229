"""Reads values out of signed statements; the caller makes the statements again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hpcc.core import CallerError
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.model import (
    DIGEST,
    MAX_INPUTS,
    EvidencePolicy,
    FilePart,
    Grade,
    Making,
    policy_of,
)
from hpcc.evidence.statement import making_statement

_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MAX_NUMBER: Final = 1 << 40


class ReadSummary(NamedTuple):
    """A summary as it was signed, with its policy, its time, and the digest of each other file."""

    payload: bytes
    policy: EvidencePolicy
    at: str
    files: dict[str, str]


def read_summary(payload: bytes) -> ReadSummary:
    """Return what a summary says that does not follow from other files.

    Raises:
        EvidenceDamagedError: it has another form.
    """
    match _json(payload):
        case {
            "predicate": {
                "timeVerified": str(at),
                "policy": {"annotations": {"isolations": list(isolations)}},
                "inputAttestations": list(attestations),
            }
        } if _TIME.fullmatch(at) and all(isinstance(label, str) for label in isolations):
            try:
                files = dict(map(_named_file, attestations))
                return ReadSummary(payload, policy_of(isolations), at, files)
            except (CallerError, ValueError) as error:
                raise EvidenceDamagedError(f"the summary: {error}") from error
        case _:
            raise EvidenceDamagedError("the summary has another form")


def read_making(payload: bytes) -> Making:
    """Return the making that a statement is about.

    Raises:
        EvidenceDamagedError: it has another form, or is spelled in another way.
    """
    match _json(payload):
        case {
            "subject": [{"name": str(name), "digest": {"sha256": str(digest)}}],
            "predicate": {
                "buildDefinition": {
                    "externalParameters": {"argv": list(argv)},
                    "internalParameters": {"grade": str(grade), "leftOut": int(left_out), **facts},
                    "resolvedDependencies": list(parts),
                },
                "runDetails": {"metadata": dict(times)},
            },
        }:
            pass
        case _:
            raise EvidenceDamagedError("the statement of the making has another form")
    try:
        making = Making(
            name=name, digest=digest, grade=Grade(grade), left_out=left_out,
            parts=tuple(map(_part, parts)), facts=_texts(facts) | _texts(times),
            command=tuple(_text(word) for word in argv),
        )  # fmt: skip
        is_same = making_statement(making) == payload
    except ValueError as error:
        raise EvidenceDamagedError("the statement of the making has another form") from error
    if (
        not is_same
        or not DIGEST.fullmatch(digest)
        or len(parts) > MAX_INPUTS
        or isinstance(left_out, bool)
        or not 0 <= left_out < _MAX_NUMBER
    ):
        raise EvidenceDamagedError("the statement of the making is not in canonical form")
    return making


def _json(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise EvidenceDamagedError("a signed statement is not JSON") from error


def _named_file(value: object) -> tuple[str, str]:
    match value:
        case {"uri": str(name), "digest": {"sha256": str(digest)}}:
            return name, digest
        case _:
            raise ValueError("not the name and digest of a file")


def _part(value: object) -> FilePart:
    match value:
        case {"name": str(name), **rest}:
            pass
        case _:
            raise ValueError("not a part")
    match rest:
        case {"digest": {"sha256": str(digest)}} if DIGEST.fullmatch(digest):
            pass
        case {"digest": _}:
            raise ValueError("not a digest")
        case _:
            digest = ""
    notes = rest.get("annotations", {})
    if not isinstance(notes, dict):
        raise ValueError("not annotations")  # noqa: TRY004 - the one documented error
    return FilePart(name, digest, _text(notes.get("package", "")), _text(notes.get("note", "")))


def _texts(values: Mapping[Any, object]) -> dict[str, str]:
    return {key: _text(value) for key, value in values.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - the one documented error
    return value
