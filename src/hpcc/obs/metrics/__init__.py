"""Counts what a service does, for Prometheus: instruments, their text form, the port that shows it.

A service declares all its metrics in one class when it starts. Names are an API: docs/metrics.md is
generated from these classes. Every label has a closed set of values, and the number of series of a
process is bounded when its metrics are declared, whatever happens later.
"""
