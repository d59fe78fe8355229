"""Fakes, harnesses and contract suites for hpcc's tests. Not part of the product's wheel."""
