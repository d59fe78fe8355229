"""One address for stock REAPI clients of a farm: authenticates by them, routes, passes bytes on."""
