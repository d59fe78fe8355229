"""OCI images: registries, layouts, manifests, layer blobs.

Every blob is checked against its digest and size while it is read. Nothing else that a registry
sends is trusted.
"""
