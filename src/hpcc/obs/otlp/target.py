"""The collector that a config file names: its address, its roots, the headers that it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.core import CallerError
from hpcc.core.endpoints import OtlpAddress, otlp_address
from hpcc.obs.receiver_files import read_private, tls_context

if TYPE_CHECKING:
    import ssl

MAX_HEADERS_BYTES: Final = 16 << 10
MAX_HEADERS: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,4094}[!-~])?")
# What the request itself says.
_OWN_HEADERS: Final = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type",
        "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpTarget:
    """Where records go, and the files that a connection needs; they may be ""."""

    address: OtlpAddress
    headers_file: str = ""
    ca_file: str = ""

    @classmethod
    def of(cls, url: str, *, headers_file: str = "", ca_file: str = "") -> OtlpTarget | None:
        """Return the target; None if `url` is "".

        Raises:
            CallerError: it is not `https://HOST[:PORT][/PATH]`, or `http` and not loopback.
        """
        if not url:
            return None
        return cls(address=otlp_address(url), headers_file=headers_file, ca_file=ca_file)

    @property
    def place(self) -> str:
        """Return host and port, for messages."""
        host = self.address.host
        return f"{f'[{host}]' if ':' in host else host}:{self.address.port}"

    def context_or_none(self) -> ssl.SSLContext | None:
        """Return what a connection is secured with; None without TLS. It reads the file.

        Raises:
            CallerError: the file with the roots cannot be used.
        """
        if self.address.is_plain:
            return None
        return tls_context(self.ca_file, "otlp_ca_file")

    def headers(self) -> dict[str, str]:
        """Return the headers of the file.

        Raises:
            CallerError: others can read the file, or a line has another form.
        """
        if not self.headers_file:
            return {}
        found: dict[str, str] = {}
        raw = read_private(Path(self.headers_file), "otlp_headers_file", MAX_HEADERS_BYTES)
        for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, value = (part.strip() for part in line.partition(":"))
            known = {key.lower() for key in found}
            if (
                not colon
                or not _NAME.fullmatch(name)
                or not _VALUE.fullmatch(value)
                or name.lower() in _OWN_HEADERS | known
                or len(found) >= MAX_HEADERS
            ):
                # Without the line, which may hold the secret.
                raise CallerError(
                    f"otlp_headers_file: line {number} of {self.headers_file} must be NAME: VALUE"
                    f" in ASCII, at most {MAX_HEADERS} of them, each name once, and none that"
                    " describes the request itself",
                    reason="config",
                )
            found[name] = value
        return found
