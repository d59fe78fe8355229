#!/bin/bash
# Evidence, end to end: a real library and a real program (Lua 5.4, as the distribution ships it) are compiled
# behind guests and linked here, attested, and checked where nothing of the farm runs: in an empty environment,
# without a network where this machine lets it, with hpcc, and with cosign and openssl alone. Then four forgeries.
#
#   make evidence-demo     on a fresh Debian or Ubuntu, as root or with sudo
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() { printf '\n   EVIDENCE DEMO FAILED: %s\n' "$*" >&2; exit 1; }

say "1. What this machine needs"
tools/bootstrap.sh packages base guest || { code=$?; [ "$code" = 77 ] || exit "$code"; note "Not root and no password-less sudo: working with what is installed."; }
tools/bootstrap.sh venv
tools/bootstrap.sh cosign
hpcc=$here/.venv/bin/hpcc
cosign=${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/cosign/cosign
home=${HPCC_DEMO_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-demo}
mkdir -p "$home"
export HPCC_DIR=$home/hpcc
export HPCC_BUILD=evidence-demo
work=$(mktemp -d "${TMPDIR:-/tmp}/hpcc-evidence.XXXXXX")
# Image, kernel and agent stay, because they take long and are named by their content.
forget() {
    rm -rf "$HPCC_DIR/state" "$HPCC_DIR/run" "$HPCC_DIR/config"
    [ ! -d "$HPCC_DIR/cache" ] || find "$HPCC_DIR/cache" -mindepth 1 -maxdepth 1 ! -name images ! -name guest -exec rm -rf {} +
}
cleanup() {
    status=$?
    "$hpcc" down >/dev/null 2>&1 || true
    "$hpcc" stop >/dev/null 2>&1 || true
    rm -rf "$work"
    forget
    return $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$hpcc" down >/dev/null 2>&1 || true
"$hpcc" stop >/dev/null 2>&1 || true
forget
for program in qemu-system-x86_64 mkfs.erofs mmdebstrap; do
    command -v "$program" >/dev/null || fail "no $program here: guests need it"
done
# The demo is not about time: on a busy machine an emulated guest boots in minutes.
mkdir -p "$HPCC_DIR/config" && printf '[cache]\nlinks = true\n\n[worker]\nboot_timeout_seconds = 900.0\n' > "$HPCC_DIR/config/hpcc.toml"

say "2. A real library and a real program: Lua 5.4 from the distribution's source package"
sources=$home/sources
ls "$sources"/lua5.4_*.orig.tar.* >/dev/null 2>&1 || tools/fetch_source.sh lua5.4 "$sources" 2> "$work/fetch.log" ||
    { cat "$work/fetch.log" >&2; fail "the source package of Lua could not be fetched"; }
mkdir "$work/project" && tar -xf "$(ls "$sources"/lua5.4_*.orig.tar.* | head -n 1)" -C "$work/project" --strip-components=1
touch "$work/project/.hpcc"
src=$work/project/src

say "3. Compiled behind guests, linked here with a record of each link"
"$hpcc" image build-debian --if-missing gcc
"$hpcc" up
make -j2 -C "$src" SYSCFLAGS=-DLUA_USE_POSIX MYCFLAGS=-fPIC CC="$hpcc gcc -std=gnu99" all > "$work/build.log" 2>&1 ||
    { tail -n 20 "$work/build.log"; fail "the build failed"; }
note "$("$src/lua" -e 'print(_VERSION .. " runs")')"

say "4. hpcc audit coverage, hpcc attest"
"$hpcc" audit coverage evidence-demo || fail "an object of the build is not of a guest"
mkdir "$work/out"
for file in liblua.a lua; do
    "$hpcc" attest "$src/$file" -o "$work/out/$file.evidence.zip" || fail "$file is not proved"
    cp "$src/$file" "$work/out/"
done
cp "$HPCC_DIR/state/evidence/maker.key.pub" "$work/out/pinned.pub"
cp -a "$HPCC_DIR/state/audit" "$work/trail"
"$hpcc" down
"$hpcc" stop

say "5. Checked where nothing of the farm is"
mkdir "$work/empty"
alone=(env -i "PATH=$PATH" "HOME=$work/empty")
if unshare -n true 2>/dev/null; then
    alone=(unshare -n "${alone[@]}")
    note "without a network"
fi
cd "$work/out"
check() { "${alone[@]}" "$here/.venv/bin/python" -m hpcc.cli verify-evidence "$@"; }
for file in liblua.a lua; do
    check "$file.evidence.zip" "$file" --key pinned.pub || fail "the evidence about $file is not good"
done

say "6. Checked without hpcc: cosign and openssl"
mkdir "$work/by-hand" && cd "$work/by-hand"
python3 -m zipfile -e ../out/liblua.a.evidence.zip .
mkdir objects && (cd objects && ar x "$work/out/liblua.a")
[ -x "$cosign" ] || note "no cosign here: only openssl"
good=0
while read -r line; do
    printf '%s' "$line" > one
    object=$(python3 "$here/tools/evidence_forge.py" object one objects)
    if [ -x "$cosign" ]; then
        "${alone[@]}" "$cosign" verify-blob-attestation --key ../out/pinned.pub --insecure-ignore-tlog --type slsaprovenance1 \
            --signature one "$object" >/dev/null 2>&1 || fail "cosign refuses the statement about $object"
    fi
    good=$((good + 1))
done < objects.intoto.jsonl
note "cosign: $good statements, each about its member of the library"
python3 "$here/tools/evidence_forge.py" message records.dsse.jsonl message sig
openssl pkeyutl -verify -rawin -pubin -inkey worker.*.pem -in message -sigfile sig | sed 's/^/   openssl: /'

say "7. Four forgeries"
cd "$work/out"
forge() { "$here/.venv/bin/python" "$here/tools/evidence_forge.py" "$@"; }
refused() { # STATUS WHAT COMMAND…
    local want=$1 what=$2 code=0; shift 2
    "$@" > "$work/said" 2>&1 || code=$?
    [ "$code" = "$want" ] || { cat "$work/said"; fail "$what: exit status $code and not $want"; }
    note "$what: refused"; grep -E '^(verdict|hpcc:)' "$work/said" | sed 's/^/      /'
}
cp liblua.a swapped.a
gcc -O0 -c "$src/lapi.c" -o lapi.o && ar r swapped.a lapi.o
refused 5 "an object was compiled elsewhere and put into the library" check liblua.a.evidence.zip swapped.a --key pinned.pub
HPCC_DIR=$work/none refused 3 "the same, attested again" "$hpcc" attest swapped.a --trail "$work/trail" -o swapped.zip
forge claim liblua.a.evidence.zip claimed.zip
refused 5 "a statement claims another isolation" check claimed.zip liblua.a --key pinned.pub
forge resign liblua.a.evidence.zip resigned.zip
refused 5 "all is signed again with another key" check resigned.zip liblua.a --key pinned.pub
forge trail "$work/trail"
refused 5 "a row in the worker's trail was changed" "$hpcc" audit coverage swapped.a --trail "$work/trail"

say "Done. Kept for next time: $home and .venv."
