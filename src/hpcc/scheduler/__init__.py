"""The scheduler: names a worker and signs a token; never sees a source byte."""
