#!/bin/sh
# Installs what the tests need, then runs them. On a fresh Debian or Ubuntu, as root or with sudo.
#   ./test.sh            all tests, without items that the last green nightly covered (CONTRIBUTING.md)
#   ./test.sh ARGS…      passed to pytest instead of the default selection
set -eu
cd "$(dirname "$0")"

# A test with a missing tool fails (tests/conftest.py), and tests that build source packages run.
export CI=true HPCC_TEST_DEBIAN=1
# Keeps .pyc files, because the tests start hpcc thousands of times.
unset PYTHONDONTWRITEBYTECODE
tools/bootstrap.sh tests

if [ -e /dev/kvm ]; then
    echo "test.sh: /dev/kvm exists; guests use it only if a probe guest boots under it, else TCG."
else
    echo "test.sh: no /dev/kvm; guests run under QEMU's TCG: the same path, about 15 times slower."
fi
[ "$(id -u)" = 0 ] || echo "test.sh: not root; tests of foreign owners and mount namespaces will say that they need it."

if [ $# -gt 0 ]; then exec .venv/bin/python -m pytest "$@"; fi
# Each worker runs a guest or a compiler, at most four because of memory. One more worker than
# processors, because the two that run guests wait half of the time.
jobs=$(($(nproc) + 1))
[ "$jobs" -le 4 ] || jobs=4
make --no-print-directory static
exec .venv/bin/python -m pytest -q --durations=15 -n "$jobs" --no-loadscope-reorder --select=changed --junitxml=.nightly/test.xml
