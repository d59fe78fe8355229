"""Guests for tests: fakes, contract suites, real daemons of containers, an emulated machine."""
