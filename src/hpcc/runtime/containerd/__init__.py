"""containerd's API, its images and layers, and what every container does."""
