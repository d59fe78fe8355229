#!/bin/sh
# Sets up what hpcc needs on Debian or Ubuntu. Called by demo.sh, test.sh, .ci/run and `make dev`.
#   bootstrap.sh packages LIST…   distribution packages (as root, or through sudo)
#   bootstrap.sh venv             .venv from the lock files, with hpcc itself in it
# LIST is one of: base (Python, compiler), guest (VM and images), test (peers the tests start).
set -eu
cd "$(dirname "$0")/.."

base="python3 python3-venv gcc g++ libc6-dev musl-tools make ca-certificates"
# The kernel of the guests is downloaded by hpcc itself (apt-get download), never installed.
guest="qemu-system-x86 erofs-utils mmdebstrap dpkg-dev apt-utils"
test="mount clang gcc-14 g++-14 clang-19 csmith libcsmith-dev llvm libclang-rt-dev ccache cmake ninja-build meson autoconf automake docker-registry skopeo util-linux git"

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo "$@"
    else return 77
    fi
}

is_available() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

packages() {
    command -v apt-get >/dev/null 2>&1 || { say "bootstrap: no apt-get here: hpcc's scripts know Debian and Ubuntu"; return 77; }
    wanted=""
    for list in "$@"; do
        case "$list" in
            base) wanted="$wanted $base" ;;
            guest) wanted="$wanted $guest" ;;
            test) wanted="$wanted $test" ;;
            *) say "bootstrap: unknown list '$list'"; return 2 ;;
        esac
    done
    missing=""
    for name in $wanted; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    as_root true || { say "bootstrap: not root and no password-less sudo; missing:$missing"; return 77; }
    say "bootstrap: installing$missing"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    known=""
    for name in $missing; do
        # Some names are virtual or differ between releases; what is essential is checked afterwards.
        if is_available "$name"; then known="$known $name"; fi
    done
    [ -z "$known" ] || as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $known >/dev/null
}

find_python() {
    # The system's own interpreter first: guests get a copy of it, with the libraries it was built for.
    for candidate in /usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 python3.13 python3.12 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    say "bootstrap: no Python 3.12 or newer with venv: apt-get install python3 python3-venv (Debian 13, Ubuntu 24.04 or newer)"
    return 1
}

make_venv() {
    stamp=.venv/.hpcc-lock
    want=$(cat requirements-dev.lock pyproject.toml launcher/*.[ch] native/*.[ch] tools/hatch_build.py | sha256sum)
    if [ -x .venv/bin/python ] && [ -x .venv/bin/hpcc ] && [ "$(cat $stamp 2>/dev/null)" = "$want" ]; then return 0; fi
    python=$(find_python)
    say "bootstrap: making .venv with $python"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s\n' "$want" > $stamp
}

case "${1:-}" in
    packages) shift; packages "$@" ;;
    venv) make_venv ;;
    *) say "usage: bootstrap.sh packages LIST… | venv"; exit 2 ;;
esac
