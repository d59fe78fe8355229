"""What a service's config file may say about where its events go is checked when it is read."""

from __future__ import annotations

import pytest

from hpcc.audit.observed_config import ObservedConfig
from hpcc.core import CallerError


def test_without_a_setting_nothing_goes_anywhere() -> None:
    config = ObservedConfig()
    config.check_observed()
    assert config.syslog_target() is None
    assert config.otlp_target() is None


def test_a_collector_is_named_with_its_files() -> None:
    config = ObservedConfig(
        otlp="https://otel.example/x", otlp_ca_file="/etc/ca.pem", otlp_headers_file="/etc/otlp"
    )
    config.check_observed()
    target = config.otlp_target()
    assert target is not None
    assert (target.place, target.address.path) == ("otel.example:443", "/x")
    assert (target.ca_file, target.headers_file) == ("/etc/ca.pem", "/etc/otlp")


@pytest.mark.parametrize(
    "config",
    [ObservedConfig(otlp="http://otel.example"), ObservedConfig(syslog="tcp://siem.example")],
    ids=["otlp", "syslog"],
)
def test_an_address_without_tls_is_refused(config: ObservedConfig) -> None:
    with pytest.raises(CallerError, match=r"must be (https|tls)://"):
        config.check_observed()
