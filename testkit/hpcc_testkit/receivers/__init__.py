"""Receivers of what services report, which tests start on loopback: of syslog and of OTLP."""
