"""Tenants: the table, its file, who may log in, sessions.

The table is the only source of a tenant's policy. `table` parses it, `authenticator` checks a login
against it, and `sessions` returns the policy in force for each later call. A table that cannot be
read leaves the old one in force.
"""
