"""What a certificate, a request for one or a key that cannot be read may raise.

`cryptography` has exceptions for it that are not a ValueError, for example for a certificate of
version 7. Code that reads bytes of others catches all of them.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import DuplicateExtension, InvalidVersion, UnsupportedGeneralNameType

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidVersion,
    DuplicateExtension,
    UnsupportedGeneralNameType,
)
