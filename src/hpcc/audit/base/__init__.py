"""A trail as files: records, signed heads, segments and seals, and how to read them in order.

Nothing here writes a record or answers a query. Every byte that is read counts as hostile.
"""
