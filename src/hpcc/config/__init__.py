"""Configuration: files and variables in, frozen values out.

An unknown key or value is a `CallerError` that names the file. Only `main` functions and commands
read the environment. All other code gets its configuration as arguments.
"""
