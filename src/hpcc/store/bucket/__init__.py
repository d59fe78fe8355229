"""Blobs and results in a bucket of an S3-compatible service.

The service is not trusted: every received byte is checked against its digest or its signature.
"""
