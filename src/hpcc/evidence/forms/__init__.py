"""The outer forms of evidence: the zip file, and envelopes of DSSE.

They know nothing of what is in them. Each has one form, so that a check can make it again and
compare bytes.
"""
