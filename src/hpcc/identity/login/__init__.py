"""Logging in: the grants that get tokens from a provider, and the file that keeps them.

A login never breaks a build. A token that cannot be renewed is kept while it is valid, and a file
that others can read is refused.
"""
