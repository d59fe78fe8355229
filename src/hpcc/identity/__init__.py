"""Who somebody is: providers' tokens, route tokens, signing keys, generated certificates."""
