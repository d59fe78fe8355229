"""The keys of a service's config file by which operators observe the service."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.audit.syslog_target import SyslogTarget
from hpcc.obs.logs import check_log_format
from hpcc.obs.metrics.address import check_admin
from hpcc.obs.otlp.target import OtlpTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedConfig:
    """Admin port, log, syslog and OTLP of a scheduler, a worker or a gateway.

    The syslog server and the OTLP collector get security events besides the trail. A gateway has no
    trail: there they get refusals besides the log.
    """

    # HOST:PORT of the admin port, which shows metrics and health; "": none.
    admin: str = ""
    # Tenants that it shows by name however many there are.
    admin_tenants: tuple[str, ...] = ()
    # "text", "json" (a line each, docs/events.md), or "auto": text on a terminal, else JSON.
    log_format: str = "text"
    # tls://HOST[:PORT] of the syslog server; "": none. Files in PEM: the server's roots ("": the
    # system's), and what this service shows to the server. 32473 is the number for examples.
    syslog: str = ""
    syslog_ca_file: str = ""
    syslog_certificate: str = ""
    syslog_key: str = ""
    syslog_enterprise: int = 32473
    # https://HOST[:PORT][/PATH] of the OTLP collector; "": none. A file in PEM with its roots ("":
    # the system's), and a 0600 file with headers, a line each, such as one with a token.
    otlp: str = ""
    otlp_ca_file: str = ""
    otlp_headers_file: str = ""

    def check_observed(self) -> None:
        """Refuse values that cannot work.

        Raises:
            CallerError: a key has another form.
        """
        check_admin(self.admin, self.admin_tenants)
        check_log_format("log_format", self.log_format)
        self.syslog_target()
        self.otlp_target()

    def syslog_target(self) -> SyslogTarget | None:
        """Return the syslog server; None: nowhere.

        Raises:
            CallerError: a key of it has another form.
        """
        return SyslogTarget.of(
            self.syslog,
            ca_file=self.syslog_ca_file,
            certificate=self.syslog_certificate,
            key=self.syslog_key,
            enterprise=self.syslog_enterprise,
        )

    def otlp_target(self) -> OtlpTarget | None:
        """Return the OTLP collector; None: nowhere.

        Raises:
            CallerError: the address has another form.
        """
        return OtlpTarget.of(
            self.otlp, headers_file=self.otlp_headers_file, ca_file=self.otlp_ca_file
        )
