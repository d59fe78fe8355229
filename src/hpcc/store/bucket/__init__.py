"""Objects in a bucket, on a web server or in a directory, with stores on top.

The service is not trusted: every received byte is checked against its digest or its signature.
"""
