"""Images: turns OCI images, named by digest, into read-only file system images for guests.

The modules here are the store of prepared images and the surveys of their compilers. `oci`
fetches, `assembly` builds, `base` is shared. Layers are hostile until they are checked.
"""
