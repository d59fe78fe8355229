#!/bin/sh
# fuzz.sh TARGET [SECONDS]: one fuzz target for a while.
#   launcher_reply   the C parser of the launcher, libFuzzer with sanitizers (needs clang)
#   replay_plan      the C library of the daemon's hit path, in a world of fakes, likewise
#   kept_hit         the parser of hits that are kept for the launcher on Windows, likewise
#   exec_header, …   a target of hpcc_testkit.fuzz: seconds are CPU time, and inputs that take new branches
#                    join the corpus; python -m hpcc_testkit.fuzz --help lists them
#   NAME             tests/property/test_NAME*.py or tests/fuzz/test_*NAME*.py with many more examples than
#                    `make check` takes: guest_bytes, guest_replies, wire_warden, ...
# Add an input that crashes a target to tests/fuzz/corpus/TARGET, under a descriptive name.
set -eu
cd "$(dirname "$0")/.."
target=${1:?usage: tools/fuzz.sh TARGET [SECONDS]}
seconds=${2:-60}

case $target in
launcher_reply) source=launcher/fuzz_reply.c ;;
replay_plan) source=native/fuzz_replay.c ;;
kept_hit) source=native/fuzz_kept_hit.c ;;
*) source= ;;
esac
if [ -n "$source" ]; then
    command -v clang >/dev/null || { echo "fuzz: clang is not installed (Debian: apt-get install clang libclang-rt-dev)" >&2; exit 77; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp -r "tests/fuzz/corpus/$target" "$work/corpus"
    # Writes the plans of real hits again, so that they have the present format.
    [ "$target" != replay_plan ] || .venv/bin/python -m hpcc_testkit.cache.replay_plans "$work/corpus"
    clang -std=c11 -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined "$source" -o "$work/fuzz"
    status=0
    "$work/fuzz" -max_total_time="$seconds" -max_len=4096 -artifact_prefix="$work/crash-" "$work/corpus" 2>&1 | tail -n 20 || status=$?
    for crash in "$work"/crash-*; do
        [ -e "$crash" ] || continue
        mkdir -p build/fuzz
        cp "$crash" build/fuzz/
        echo "fuzz: crashed; the input is in build/fuzz/" >&2
        status=1
    done
    exit "$status"
fi

if .venv/bin/python -c "import sys, hpcc_testkit.fuzz.targets as t; sys.exit(sys.argv[1] not in t.TARGETS)" "$target"; then
    exec .venv/bin/python -m hpcc_testkit.fuzz "$target" "$seconds"
fi

set -- tests/property/test_"$target"*.py
[ -e "$1" ] || set -- tests/fuzz/test_*"$target"*.py
[ -e "$1" ] || { echo "fuzz: no target '$target'; there are launcher_reply, replay_plan, kept_hit and:" >&2; ls tests/property tests/fuzz | sed -n 's/^test_\(fuzz_\)\{0,1\}\(.*\)\.py$/  \2/p' >&2; exit 2; }
end=$(($(date +%s) + seconds))
while [ "$(date +%s)" -lt "$end" ]; do
    # A fresh seed each round. A seed also switches off the fixed examples of the `ci` profile.
    .venv/bin/python -m pytest -q --hypothesis-seed="$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')" "$@"
done
