"""The keys of a service's config file by which operators observe the service."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.audit.syslog_target import SyslogTarget
from hpcc.obs.logs import check_log_format
from hpcc.obs.metrics.address import check_admin


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedConfig:
    """Admin port, log and syslog of a scheduler, a worker or a gateway.

    The syslog server gets security events besides the trail. A gateway has no trail: there it gets
    refusals besides the log.
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

    def check_observed(self) -> None:
        """Refuse values that cannot work.

        Raises:
            CallerError: a key has another form.
        """
        check_admin(self.admin, self.admin_tenants)
        check_log_format("log_format", self.log_format)
        self.syslog_target()

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
