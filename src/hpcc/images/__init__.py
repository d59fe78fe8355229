"""Images: OCI images by digest in, read-only file system images for guests out."""
