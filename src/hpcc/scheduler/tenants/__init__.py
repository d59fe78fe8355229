"""Tenants: the table, where it is, who may log in, sessions.

The table is the only source of a tenant's policy. It is in a file (`file`) or in the control store
(`stored`). `table` parses it, `authenticator` checks a login against it, and `sessions` returns the
policy in force for each later call. A table that cannot be read leaves the old one in force.
"""
