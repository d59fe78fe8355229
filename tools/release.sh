#!/bin/sh
# Runs tools/release from .venv: tools/release.sh make|verify|licences|audit ARGS…
root=$(dirname "$0")/..
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root/tools" exec "$root/.venv/bin/python" -m release "$@"
