"""Tenants: the table, its file, who is let in, sessions."""
