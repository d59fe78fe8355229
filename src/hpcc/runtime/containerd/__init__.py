"""containerd's API, its images and layers, and what every container does.

The backends that run containers share it. It may not import one of them.
"""
