#!/bin/sh
# Downloads a Debian or Ubuntu source package, signature-checked by apt, into a directory.
#   fetch_source.sh [--upstream] PACKAGE DIRECTORY
# --upstream: only the archives, not the packaging. A mirror that lags behind a point release may
# lack the new packaging although it has the unchanged upstream archive.
# apt gets a private state, so the machine's package lists and sources stay unchanged.
set -eu
only=""
if [ "$1" = --upstream ]; then only=--tar-only; shift; fi
package=$1 directory=$2
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT INT TERM
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts"

# Turns every "deb" source of the distribution into "deb-src", except local directories.
for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    grep -q 'file:' "$file" || sed 's/^Types:.*/Types: deb-src/' "$file" > "$state/parts/$(basename "$file")"
    if grep -q 'file:' "$file"; then
        # Keep the stanzas that name a mirror.
        awk -v RS= -v ORS='\n\n' '!/file:/' "$file" | sed 's/^Types:.*/Types: deb-src/' > "$state/parts/$(basename "$file")"
    fi
done
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    grep -E '^deb[[:space:]]' "$file" | grep -v 'file:' | sed 's/^deb[[:space:]]/deb-src /' > "$state/parts/$(basename "$file" .list).list" || true
done
find "$state/parts" -size 0 -delete

apt() { apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$state/parts" \
    -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User= "$@"; }
apt update
cd "$directory"
apt source --download-only $only "$package"
