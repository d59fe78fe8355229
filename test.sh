#!/bin/sh
# Installs what the tests need, then runs all of them. On a fresh Debian or Ubuntu, as root or with sudo.
#   ./test.sh            everything
#   ./test.sh ARGS…      passed to pytest instead of the default selection
set -eu
cd "$(dirname "$0")"

# Compiled files are kept: the tests start hpcc some thousands of times.
unset PYTHONDONTWRITEBYTECODE
degraded=""
tools/bootstrap.sh packages base guest test || {
    code=$?
    [ "$code" = 77 ] || exit "$code"
    degraded="yes"
    echo "test.sh: no packages could be installed here; tests whose tools are missing will fail, not be skipped." >&2
}
tools/bootstrap.sh venv
tools/bootstrap.sh firecracker
tools/bootstrap.sh seaweedfs
tools/bootstrap.sh buildbox
tools/bootstrap.sh buildgrid
tools/bootstrap.sh helm
tools/bootstrap.sh windows-python
tools/bootstrap.sh identity-provider || {
    code=$?
    [ "$code" = 77 ] || exit "$code"
    echo "test.sh: no identity provider; the tests that log in will fail, not be skipped." >&2
}

if [ -e /dev/kvm ]; then
    echo "test.sh: /dev/kvm exists; guests use it only if a probe guest boots under it, else TCG."
else
    echo "test.sh: no /dev/kvm; guests run under QEMU's TCG: the same path, about 15 times slower."
fi
[ "$(id -u)" = 0 ] || echo "test.sh: not root; tests of foreign owners and mount namespaces will say that they need it."
[ -z "$degraded" ] || echo "test.sh: running with what is installed."

if [ $# -gt 0 ]; then exec .venv/bin/python -m pytest "$@"; fi
# Several at once, each with a guest or a compiler of its own: a processor for each, memory for four.
jobs=$(nproc)
[ "$jobs" -le 4 ] || jobs=4
.venv/bin/ruff format --check -q .
.venv/bin/ruff check -q .
.venv/bin/mypy src testkit
.venv/bin/lint-imports --no-cache
.venv/bin/python tools/gen.py --check
code=0
rm -f .pytest_cache/v/cache/lastfailed
.venv/bin/python -m pytest -q --durations=15 -n "$jobs" --no-loadscope-reorder || code=$?
[ "$code" = 1 ] || exit "$code"
# A few that failed beside others are asked again, alone: on a small machine emulated guests may starve.
# One that fails twice has failed.
failed=$(.venv/bin/python -c 'import json; print(len(json.load(open(".pytest_cache/v/cache/lastfailed"))))')
[ "$failed" -le 12 ] || { echo "test.sh: $failed tests failed" >&2; exit 1; }
echo "test.sh: $failed tests failed beside others; once more, each alone:"
exec .venv/bin/python -m pytest -q --last-failed --last-failed-no-failures none -v
