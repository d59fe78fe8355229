#!/bin/bash
# The main job, end to end: a real C project (Lua 5.4, as the distribution ships it) built twice from clean
# through `hpcc gcc`. First build: every compile runs inside a guest with a separate kernel, with the compiler
# of an OCI image. Second build: all from the cache. Then the proof: the same commands, run at the same root by
# that image's compiler without daemon, worker, guest and cache, give the same bytes.
#
#   ./demo.sh            on a fresh Debian or Ubuntu, as root or with sudo
#   ./demo.sh --local    the local cache only
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() { printf '\n   DEMO FAILED: %s\n' "$*" >&2; exit 1; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }

mode=remote
[ "${1:-}" = "--local" ] && mode=local

say "1. What this machine needs"
packages_ok=yes
tools/bootstrap.sh packages base guest || { code=$?; [ "$code" = 77 ] || exit "$code"; packages_ok=no; }
if [ "$packages_ok" = no ]; then note "Not root and no password-less sudo: working with what is installed."; fi
tools/bootstrap.sh venv
hpcc=$here/.venv/bin/hpcc
note "hpcc: $("$hpcc" --version)"

home=${HPCC_DEMO_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-demo}
mkdir -p "$home"
export HPCC_DIR=$home/hpcc
work=$(mktemp -d "${TMPDIR:-/tmp}/hpcc-demo.XXXXXX")
# Deletes results, counters and audit rows of an earlier demo, which would make the counts below
# meaningless. Image, kernel and agent stay: they take long, and are named by their content.
forget() {
    rm -rf "$HPCC_DIR/state" "$HPCC_DIR/run"
    [ ! -d "$HPCC_DIR/cache" ] || find "$HPCC_DIR/cache" -mindepth 1 -maxdepth 1 ! -name images ! -name guest -exec rm -rf {} +
}
cleanup() {
    status=$?
    "$hpcc" down >/dev/null 2>&1 || true
    "$hpcc" stop >/dev/null 2>&1 || true
    rm -rf "$work"
    [ -n "${HPCC_DEMO_KEEP:-}" ] || forget
    return $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$hpcc" down >/dev/null 2>&1 || true
"$hpcc" stop >/dev/null 2>&1 || true
forget

if [ "$mode" = remote ]; then
    for program in qemu-system-x86_64 mkfs.erofs mmdebstrap; do
        command -v "$program" >/dev/null || { note "No $program here: showing the local half."; mode=local; break; }
    done
fi

say "2. A real project: Lua 5.4 from the distribution's source package"
sources=$home/sources
if ! ls "$sources"/lua5.4_*.orig.tar.* >/dev/null 2>&1; then
    tools/fetch_source.sh lua5.4 "$sources" 2> "$work/fetch.log" || { cat "$work/fetch.log" >&2; fail "the source package of Lua could not be fetched"; }
fi
archive=$(ls "$sources"/lua5.4_*.orig.tar.* | head -n 1)
note "$(basename "$archive"), sha256 $(sha256sum "$archive" | cut -c1-16)…"
mkdir "$work/src" && tar -xf "$archive" -C "$work/src" --strip-components=1
project=$work/src
touch "$project/.hpcc"
make_args=(-C "$project/src" SYSCFLAGS=-DLUA_USE_POSIX MYCFLAGS=-fPIC)
units=$(make -n "${make_args[@]}" o 2>/dev/null | grep -c -- ' -c ' || true)
note "$units translation units"
[ "$units" -ge 20 ] || fail "expected at least 20 translation units, found $units"

if [ "$mode" = remote ]; then
    say "3. A toolchain image from the distribution's packages, and everything up"
    "$hpcc" doctor || true
    if "$hpcc" image build-debian --if-missing gcc; then
        "$hpcc" up
    elif [ "$(id -u)" != 0 ]; then
        note "No image can be made without root here (see above): showing the local half."
        mode=local
    else
        fail "the toolchain image could not be made"
    fi
fi
if [ "$mode" = local ]; then
    say "3. The local daemon (no guests)"
    "$hpcc" start
fi
"$hpcc" status

count() { "$hpcc" stats --json | "$here/.venv/bin/python" -c '
import json, sys
counters = json.load(sys.stdin)
print(sum(v for k, v in counters.items() if any(k == p or k.startswith(p + ".") for p in sys.argv[1:])))' "$@"; }

timed() { local begin end; begin=$(date +%s.%N); "$@"; end=$(date +%s.%N); seconds=$(awk "BEGIN{printf \"%.2f\", $end-$begin}"); }

say "4. First build, from clean: make CC=\"hpcc gcc\""
timed make -j2 "${make_args[@]}" CC="$hpcc gcc -std=gnu99" o > "$work/first.log" 2>&1 || { tail -n 20 "$work/first.log"; fail "the build failed"; }
first=$seconds
mkdir "$work/first" && cp "$project"/src/*.o "$work/first/"
note "$units units in $first s"
if [ "$mode" = remote ]; then
    executed=$(count miss.remote.executed)
    note "compiled inside a guest: $executed; fallbacks to the local compiler: $(count fallback)"
    [ "$executed" = "$units" ] || { "$hpcc" stats; fail "not every unit was compiled in a guest"; }
fi

say "5. Second build, from clean: the same command"
make "${make_args[@]}" clean > /dev/null
before=$(count hit)
timed make -j2 "${make_args[@]}" CC="$hpcc gcc -std=gnu99" o > "$work/second.log" 2>&1 || fail "the second build failed"
note "$units units in $seconds s (first build: $first s)"
hits=$(( $(count hit) - before ))
note "hits: $hits of $units"
[ "$hits" = "$units" ] || { "$hpcc" stats; fail "the second build was not all hits"; }
for object in "$work"/first/*.o; do
    cmp -s "$object" "$project/src/$(basename "$object")" || fail "$(basename "$object") differs between the builds"
done
note "all $units objects are byte-identical to those of the first build"

if [ "$mode" = remote ]; then
    say "6. Proof: the same commands by that image's compiler alone"
    "$hpcc" audit export --format jsonl > "$work/rows.jsonl"
    note "injected by hpcc: $(tools/demo_proof.py injected "$work/rows.jsonl")"
    tools/demo_proof.py prove --hpcc "$hpcc" --rows "$work/rows.jsonl" --project "$project" --objects "$work/first" --scratch "$work/proof" \
        || fail "an object differs from what the image's compiler makes"
else
    say "6. Proof: the same build by the bare compiler"
    mkdir "$work/bare" && cp -a "$project/." "$work/bare/" && make -C "$work/bare/src" clean >/dev/null
    make -j2 -C "$work/bare/src" SYSCFLAGS=-DLUA_USE_POSIX MYCFLAGS=-fPIC CC="gcc -std=gnu99" o >/dev/null
    for object in "$work"/first/*.o; do
        cmp -s "$object" "$work/bare/src/$(basename "$object")" || fail "$(basename "$object") differs from the bare compile"
    done
    note "all $units objects are byte-identical to those of the bare compiler"
fi

say "7. Link and run"
make "${make_args[@]}" CC="$hpcc gcc -std=gnu99" all > "$work/link.log" 2>&1 || { tail -n 5 "$work/link.log"; fail "the link failed"; }
"$project/src/lua" -e 'local t = {} for i = 1, 10 do t[i] = i * i end print(_VERSION .. " runs: " .. table.concat(t, " "))' | sed 's/^/   /'

say "8. What hpcc says of it"
"$hpcc" stats
if [ "$mode" = remote ]; then
    "$hpcc" audit list --limit 3
    "$hpcc" audit verify
    say "9. Down"
    "$hpcc" down
fi
say "Done. Kept for next time: $home and .venv; everything else is as it was."
[ "$mode" = remote ] || note "This was the local half: no guest was booted (see step 1)."
