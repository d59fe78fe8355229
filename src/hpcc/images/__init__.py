"""Images: OCI images by digest in, read-only file system images for guests out.

The modules here are the store of prepared images and what is known of their compilers. `oci`
fetches, `assembly` builds, `base` is shared. Layers are hostile until they are checked.
"""
