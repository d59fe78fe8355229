"""OCI images: registries, layouts, manifests, layer blobs."""
