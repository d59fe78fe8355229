"""OCI images: registries, layouts, manifests, layer blobs.

Every blob is checked against its digest and size while it is read. A registry is not trusted beyond
that.
"""
