"""What may be sent to a guest: input tree, guest paths, the request for one compile."""
