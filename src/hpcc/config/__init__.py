"""Configuration: files and variables in, frozen values out.

A key or value that is not known is a `CallerError` that names the file. Only `main` functions and
commands read the environment; everything else is passed its configuration.
"""
