"""REAPI v2: the client of a worker, the worker's server, another service's stores."""
