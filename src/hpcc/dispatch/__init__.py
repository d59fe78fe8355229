"""The client side of farms: routes, uploads, execution, checked results."""
