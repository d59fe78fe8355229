"""Reads TOML that a person wrote; whatever is wrong with it is one error with a cause."""

from __future__ import annotations

import tomllib
from typing import Any

from hpcc.core import CallerError


def read_toml(text: str, *, source: str, reason: str) -> dict[str, Any]:
    """Return the tables of a file; `source` names it in the error, `reason` is the error's.

    Raises:
        CallerError: it is not TOML, or has numbers or nesting that no setting needs.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CallerError(f"{source}: {error}", reason=reason) from error
    except ValueError as error:  # the limit of Python for digits
        raise CallerError(f"{source}: a number has too many digits", reason=reason) from error
    except RecursionError as error:
        raise CallerError(
            f"{source}: lists or tables are nested too deep", reason=reason
        ) from error
