"""Config files that one hpcc process writes for another: JSON, private, strict."""

from __future__ import annotations

import difflib
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, cast, get_origin, get_type_hints

from hpcc.core import CallerError
from hpcc.files import NONBLOCK, access_of, open_file, privacy_remedy

MAX_SERVICE_FILE_BYTES: Final = 1 << 20
_MAX_NUMBER: Final = (1 << 63) - 1


def load_service_file[T](path: Path, kind: type[T]) -> T:
    """Return the content of a 0600 JSON file as the frozen dataclass `kind`.

    Fields may be str, int, float, bool, Path, tuple[str, ...] or a Mapping. The caller checks the
    content of a Mapping. Unknown and missing keys are errors.

    Raises:
        CallerError: others can read it, it is not JSON, or a key, type or value is wrong.
    """
    return parse_service_file(_read_private(path), kind, source=str(path))


def parse_service_file[T](raw: bytes, kind: type[T], *, source: str) -> T:
    """Return the content of such bytes as `kind`; see `load_service_file`."""
    try:
        table = json.loads(raw)
    except (ValueError, RecursionError) as error:
        # Only the position from the decoder's text: errors never quote a file with secrets.
        where = ""
        if isinstance(error, json.JSONDecodeError):
            where = f" (line {error.lineno}, column {error.colno})"
        raise CallerError(f"{source} is not JSON{where}", reason="config") from error
    if not isinstance(table, dict):
        raise CallerError(f"{source} must hold one object", reason="config")
    # Any: dataclasses.fields expects a dataclass type, which a type variable cannot express.
    declared: Any = kind
    known = {f.name: f for f in fields(declared)}
    unknown = sorted(set(table) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CallerError(f"{source}: unknown key {unknown[0][:80]!r}{hint}", reason="config")
    types = get_type_hints(kind)
    values: dict[str, object] = {}
    for name, field in known.items():
        if name in table:
            values[name] = _value(f"{source}: {name}", types[name], table[name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise CallerError(f"{source}: key {name!r} is missing", reason="config")
    try:
        return kind(**values)
    except CallerError as error:  # the kind's own checks name the key only
        raise CallerError(f"{source}: {error}", reason=error.reason) from error


def _value(where: str, wanted: object, value: object) -> object:
    if wanted is Path:
        if isinstance(value, str) and Path(value).is_absolute() and _is_text(value):
            return Path(value)
        raise CallerError(f"{where}: must be an absolute path", reason="config")
    if wanted is float and type(value) in {int, float}:
        return _float(where, cast("float", value))
    if isinstance(value, str) and not _is_text(value):
        raise CallerError(f"{where}: must be text without NUL", reason="config")
    if wanted in {str, int, float, bool}:
        if type(value) is wanted:
            return value
        raise CallerError(
            f"{where}: must be {getattr(wanted, '__name__', wanted)}", reason="config"
        )
    if get_origin(wanted) is Mapping:
        if isinstance(value, dict):
            return value
        raise CallerError(f"{where}: must be an object", reason="config")
    if isinstance(value, list) and all(isinstance(v, str) and _is_text(v) for v in value):
        return tuple(value)
    raise CallerError(f"{where}: must be a list of strings", reason="config")


def _float(where: str, value: float) -> float:
    if not abs(value) <= _MAX_NUMBER:  # also nan
        raise CallerError(f"{where}: must be a number below 2**63", reason="config")
    return float(value)


def _is_text(value: str) -> bool:
    """Return whether the system takes the text as a path or an argument."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a pair, which JSON can escape
        return False


def _read_private(path: Path) -> bytes:
    try:
        descriptor = open_file(path, os.O_RDONLY | NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            access = access_of(descriptor)
            raw = file.read(MAX_SERVICE_FILE_BYTES + 1)
    except OSError as error:
        # open(2) returns it for a link that must not be followed, and for a loop of links.
        is_link = error.errno == errno.ELOOP
        why = "it is a symbolic link: name the file itself" if is_link else error.strerror
        raise CallerError(f"cannot read {path}: {why}", reason="config") from error
    if not access.is_regular or not access.is_private:
        raise CallerError(f"others can read {path}, which holds secrets: {privacy_remedy(path)}")
    if len(raw) > MAX_SERVICE_FILE_BYTES:
        raise CallerError(f"{path} is too large", reason="config")
    return raw
