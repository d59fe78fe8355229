# Every target works from a fresh clone: the first one that needs it makes .venv from the lock files.
# `./demo.sh`, `./test.sh` and `make bench` also install the distribution's packages; the others do not.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.hpcc-dev-stamp
JOBS ?= auto

.PHONY: help dev check static test test-fast test-vm test-chaos test-windows test-farm test-machines test-integration nightly nightly-restart \
	fuzz demo evidence-demo bench bench-guest bench-signing bench-evidence bench-recorder bench-farm bench-farm-cost bench-farm-scale bench-farm-peers bench-remote-cache bench-sharing bench-packs bench-cxx bench-corpus soak gen docs clean lock changelog release-notes hooks packages release release-verify audit-deps

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

dev: $(STAMP)  ## the developer's environment in .venv, from the lock files

$(STAMP): requirements-dev.lock pyproject.toml launcher/hpcc.c launcher/commands.h launcher/wire.h src/hpcc/wire/launcher.py native/replay.c native/names.h tools/hatch_build.py
	./tools/bootstrap.sh venv
	@touch $@

FAST_TESTS := tests/unit tests/property tests/contract tests/golden tests/fuzz tests/arch
check: static  ## before each commit: format, lint, types, layers, generated files, fast tests; under 2 minutes, no network, no VM
	$(PY) -m pytest -q -n 2 --no-loadscope-reorder $(FAST_TESTS)

static: dev  ## the part of `make check` that runs no test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy src testkit
	$(VENV)/bin/lint-imports --no-cache
	$(PY) tools/gen.py --check
	$(PY) tools/gen_reasons.py --check
	$(PY) tools/gen_metrics.py --check
	$(PY) tools/gen_events.py --check
	$(PY) tools/gen_dashboards.py --check
	$(PY) tools/check_prose.py
	tools/release.sh licences

test:  ## ./test.sh: installs what the tests need and runs them, without what the last nightly covered; 25 minutes
	./test.sh

nightly:  ## everything, in stages, 90 minutes at most; again: only stages that are not green for this tree
	./tools/bootstrap.sh tests
	$(PY) tools/nightly.py $(ARGS)

nightly-restart:  ## everything, also stages that are green for this tree
	@$(MAKE) --no-print-directory nightly ARGS=--restart

test-fast: dev  ## the tests of `make check` without its other steps
	$(PY) -m pytest -q -n 2 --no-loadscope-reorder $(FAST_TESTS)

test-integration: dev  ## services on loopback, real compilers, a real registry and identity provider
	./tools/bootstrap.sh identity-provider
	./tools/bootstrap.sh seaweedfs
	./tools/bootstrap.sh buildbox
	./tools/bootstrap.sh buildgrid
	./tools/bootstrap.sh prometheus
	./tools/bootstrap.sh rsyslog
	./tools/bootstrap.sh rotel
	./tools/bootstrap.sh cosign
	./tools/bootstrap.sh go
	./tools/bootstrap.sh windows-python
	./tools/bootstrap.sh windows-clang
	$(PY) -m pytest -q tests/integration

test-vm: dev  ## real guests: QEMU, Firecracker (KVM where it works, else emulated), containers
	./tools/bootstrap.sh firecracker
	$(PY) -m pytest -q tests/vm tests/e2e

# Part of `make test`, which runs all of tests/; tests/arch/test_windows_tests.py holds the list complete.
WINDOWS_TESTS := $(sort $(shell find tests -name 'test_*.py' | grep -E 'windows|msvc|clang_cl|wine')) tests/unit/wire/test_pipe.py \
	tests/unit/dispatch/test_folded_trees.py tests/unit/runtime/containerd/test_client.py
test-windows: dev  ## what of the Windows parts can run here, half an hour at most: paths, cl's grammar, clang-cl, Wine, a real containerd
	./tools/bootstrap.sh windows-python
	./tools/bootstrap.sh windows-clang
	timeout --foreground 1800 $(PY) -m pytest -q $(WINDOWS_TESTS)

test-chaos: dev  ## a VM, a warden and a worker killed in a 50-unit build; then the host must be clean
	$(PY) -m pytest -q tests/e2e/test_chaos.py tests/integration/test_crash_reaping.py

test-machines: dev  ## machines with systemd: the shipped units, drained, killed, restarted; docs/operate.md typed word for word
	./tools/bootstrap.sh packages base guest test || [ $$? = 77 ]
	./tools/bootstrap.sh identity-provider || [ $$? = 77 ]
	$(PY) -m pytest -q tests/e2e/test_machines.py tests/e2e/test_bundle_machines.py tests/e2e/test_operate_page.py

test-farm: dev  ## two tenants, three people, two schedulers, two workers, PostgreSQL, S3 and OpenID providers, parts killed
	./tools/bootstrap.sh packages base guest test || [ $$? = 77 ]
	./tools/bootstrap.sh seaweedfs
	./tools/bootstrap.sh identity-provider
	$(PY) -m pytest -q tests/integration/test_several_workers.py tests/integration/test_join_and_leave.py \
		tests/integration/bench/test_farm_bench.py tests/integration/agreement/test_three_developers.py \
		tests/e2e/test_farm.py

T ?= wire_launcher
fuzz: dev  ## one fuzz target for a minute: make fuzz T=wire_launcher
	./tools/fuzz.sh $(T)

demo:  ## a real project behind a VM boundary, then from the cache
	./demo.sh

evidence-demo:  ## a library and a program compiled behind guests, attested, checked elsewhere, and four forgeries
	tools/evidence_demo.sh

N ?= 10000
soak: dev  ## every kill point, then random edits, bare and through hpcc, compared byte for byte: make soak N=10000
	HPCC_ALL_POINTS=1 $(PY) -m pytest -q tests/integration/proof
	$(PY) -m hpcc_testkit.cache.soak --operations $(N)

bench:  ## figures beside ccache and sccache, about half an hour: make bench ARGS=--quick
	./tools/bootstrap.sh packages base bench || [ $$? = 77 ]
	@$(MAKE) --no-print-directory dev
	$(PY) bench/run.py $(ARGS)

bench-guest: dev  ## figures of guests: boot, restore, what a compile costs besides the compiler, bytes, memory
	$(PY) bench/guest.py $(ARGS)

bench-signing: dev  ## figures of signed results: to sign one, to check one
	$(PY) bench/signing.py $(ARGS)

bench-evidence: dev  ## figures of evidence: bytes and CPU of a row, verify, queries of a million rows; ten minutes: make bench-evidence ARGS=--quick
	$(PY) bench/evidence.py $(ARGS)

bench-recorder: dev  ## what the flight recorder costs a hit: two daemons, one of which drops its records; a minute
	$(PY) bench/recorder.py $(ARGS)

bench-farm: dev  ## a simulated farm: routes, heartbeats, memory, recovery, viewers; what a client pays: make bench-farm ARGS=--quick
	$(PY) bench/farm.py $(ARGS)

bench-farm-cost: dev  ## CPU of each process of a farm for one compile, guests are containers, as root: make bench-farm-cost ARGS="--rounds 20"
	$(PY) bench/farm_cost.py $(ARGS)

bench-farm-scale: dev  ## one build on 1, 2, 4 and 8 workers, and a worker that joins in mid-build; 20 minutes
	$(PY) bench/farm.py scale --out bench/results/farm-scale.json $(ARGS)

bench-farm-peers: dev  ## distcc, icecream and hpcc (containers) on the same units; root, containerd, an image with gcc-14
	$(PY) bench/farm_peers.py $(ARGS)

bench-remote-cache: dev  ## a bucket beside sccache at 0, 20 and 100 ms; root, SeaweedFS: make bench-remote-cache ARGS=--quick
	./tools/bootstrap.sh seaweedfs
	./tools/bootstrap.sh sccache
	$(PY) bench/remote_cache.py $(ARGS)

bench-packs: dev  ## the first build after `hpcc pack pull`, beside single entries and a warm cache; 2 minutes: make bench-packs ARGS=--quick
	$(PY) bench/packs.py $(ARGS)

bench-sharing: dev  ## a team builds Redis on a farm with microVMs: who hits, what is not shared: make bench-sharing ARGS="--guests processes"
	./tools/bootstrap.sh packages base guest test || [ $$? = 77 ]
	./tools/bootstrap.sh seaweedfs
	./tools/bootstrap.sh identity-provider
	$(PY) bench/sharing_story.py $(ARGS)

bench-cxx: dev  ## C++20 modules, precompiled headers, clang-tidy and CUDA by CMake, beside ccache and sccache; twelve minutes: make bench-cxx ARGS=--quick
	$(PY) bench/cxx_projects.py $(ARGS)

bench-corpus:  ## hits on real packages beside ccache, every output compared; hours: make bench-corpus ARGS="--packages zlib --scenario same-directory"
	./tools/bootstrap.sh packages base bench || [ $$? = 77 ]
	@$(MAKE) --no-print-directory dev
	$(PY) bench/corpus/run.py $(ARGS)

gen: dev  ## rebuild src/hpcc/_proto, the command reference in the README, the manual page, generated pages and dashboards
	$(PY) tools/gen.py
	$(PY) tools/gen_help.py
	$(PY) tools/gen_man.py
	$(PY) tools/gen_reasons.py
	$(PY) tools/gen_metrics.py
	$(PY) tools/gen_events.py
	$(PY) tools/gen_dashboards.py

docs: dev  ## check links and that the README's command reference is what --help prints
	$(PY) -m pytest -q tests/arch

changelog: dev  ## the changelog section that the fragments in changes/ make, without writing it
	$(VENV)/bin/towncrier build --draft --version next

release-notes: dev  ## the same written into CHANGELOG.md, fragments removed: make release-notes VERSION=0.2.0
	@[ -n "$(VERSION)" ] || { echo "make release-notes VERSION=x.y.z" >&2; exit 2; }
	$(VENV)/bin/towncrier build --yes --version "$(VERSION)"

packages: dev  ## Debian and RPM packages of this tree in dist/packages; fetches 70 MB once: make packages ARGS="--kind deb"
	rm -rf dist/packages
	$(PY) -m hatchling build -t wheel -d dist/packages
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tools $(PY) -m packages build --out dist/packages \
		--wheel dist/packages/*.whl --epoch "$$(git log -1 --format=%ct)" $(ARGS)

DIR ?= dist/release
release: dev  ## wheel, source archive, packages, SBOM, provenance of HEAD, built twice: make release VERSION=0.1.0 RELEASE_KEY=key.pem
	tools/release.sh make --out "$(DIR)" --version "$(VERSION)" --key "$(RELEASE_KEY)"

release-verify: dev  ## check a release and build it again: make release-verify DIR=dist/release KEY=public.pem
	tools/release.sh verify $(if $(KEY),--key "$(KEY)") $(ARGS) "$(DIR)"

audit-deps: dev  ## known vulnerabilities of the lock files; says so where it cannot ask: make audit-deps ARGS=--required
	tools/release.sh audit $(ARGS)

hooks: dev  ## install the git hooks: lint at each commit, `make check` before a push
	$(VENV)/bin/pre-commit install

lock:  ## write the lock files anew
	$(VENV)/bin/uv pip compile -q --universal --python-version 3.12 --generate-hashes --extra farm pyproject.toml -o requirements.lock
	$(VENV)/bin/uv pip compile -q --universal --python-version 3.12 --generate-hashes --extra farm pyproject.toml --group dev -o requirements-dev.lock

clean:  ## what builds and tests left in this tree
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/results/tmp
