"""The syslog server that a config file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hpcc.core import CallerError
from hpcc.obs.receiver_files import read_private, tls_context

if TYPE_CHECKING:
    import ssl

# IANA's port of syslog over TLS.
_PORT: Final = 6514
_MAX_ENTERPRISE: Final = (1 << 32) - 1
_MAX_KEY_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogTarget:
    """Where events go: the keys of a config file that begin with `syslog`."""

    host: str
    port: int
    enterprise: int
    # Files in PEM; "": the system's roots, and no certificate of this service.
    ca_file: str = ""
    certificate: str = ""
    key: str = ""

    @classmethod
    def of(
        cls, url: str, *, ca_file: str, certificate: str, key: str, enterprise: int
    ) -> SyslogTarget | None:
        """Return the target; None if `url` is "".

        Raises:
            CallerError: it has another form than `tls://HOST[:PORT]`, the number is out of range,
                or one of certificate and key is missing.
        """
        if not 1 <= enterprise <= _MAX_ENTERPRISE:
            raise CallerError(f"syslog_enterprise: {enterprise} is out of range", reason="config")
        if bool(certificate) != bool(key):
            raise CallerError("syslog_certificate and syslog_key go together", reason="config")
        if not url:
            return None
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if not host or port == 0 or f"tls://{parts.netloc}" != url or parts.username is not None:
            raise CallerError("syslog must be tls://HOST[:PORT]", reason="config")
        return cls(
            host=host, port=port or _PORT, enterprise=enterprise, ca_file=ca_file,
            certificate=certificate, key=key,
        )  # fmt: skip

    def context(self) -> ssl.SSLContext:
        """Return what a connection is secured with. It reads the files.

        Raises:
            CallerError: a file cannot be used, or others can read the key.
        """
        context = tls_context(self.ca_file, "syslog_ca_file")
        if self.certificate:
            read_private(Path(self.key), "syslog_key", _MAX_KEY_BYTES)
            try:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ValueError) as error:
                raise CallerError(
                    f"syslog_certificate: {self.certificate} and {self.key} must be a pair in PEM,"
                    " the key without a password",
                    reason="config",
                ) from error
        return context


def _no_password() -> str:
    """Answer OpenSSL, which would ask at the terminal for the password of an encrypted key."""
    return ""
