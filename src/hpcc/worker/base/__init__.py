"""What all parts of a worker rest on: configuration, trust domains, identity, audit rows."""
