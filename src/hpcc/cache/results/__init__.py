"""Stored results: found, checked, placed as outputs, recorded, shared between checkouts.

A result is put in place whole or not at all, depfile first and object last. It runs no compiler and
knows no farm.
"""
