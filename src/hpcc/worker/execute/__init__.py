"""One action from its digest to a signed result."""
