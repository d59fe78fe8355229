"""Tenants: the table, its file, who is let in, sessions.

The table is the only source of a tenant's policy. `table` parses it, `door` checks a login against
it, and `sessions` returns the policy in force for each later call. A table that cannot be read
leaves the old one in force.
"""
