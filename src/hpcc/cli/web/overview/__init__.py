"""Sums over the builds of a farm: the first page, the cache page, and where a search leads.

All of it is made of the list that `hpcc farm builds --json` prints. Clients told the schedulers of
these builds, so every number is a sum of claims, and the pages say so.
"""
