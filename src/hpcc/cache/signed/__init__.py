"""Signed results of a team's remote cache: fetched, checked, offered.

The service that keeps them is not trusted. An entry counts only with the signature of a key that
this user has confirmed for this checkout. It is stored under a separate key, apart from results
that were made here, and the ordinary look-up decides by the digests of its inputs.
"""
