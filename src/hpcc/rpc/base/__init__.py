"""What services and clients share: TLS channels, errors, one place for each call."""
