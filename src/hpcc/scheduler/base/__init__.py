"""What all parts of a scheduler rest on: configuration, signing keys, limits of the process."""
