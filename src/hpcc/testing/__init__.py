"""Fakes, harnesses and contract suites for tests; never imported by the product.

Each area has a module of its own here, imported by that name: tests cannot import each other.
"""
