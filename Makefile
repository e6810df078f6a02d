# Every recipe that people and CI run, under the same names. `make` alone lists them.
#
# CARGO_TARGET_DIR is left as given. Programs that are missing are installed by apt where this user
# may, else the recipe says what to install.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check bench lint tools \
	test-tools fmt clippy unit doctest doc deny differential fuzz release bench-smoke

# Benches pull in the software that Headgate is compared with: never part of a test build.
MEMBERS := --workspace --exclude headgate-benches
CARGO := cargo
FUZZ_SECONDS ?= 60
export CARGO_TERM_COLOR ?= auto
# A shell that is no login shell may not know where rustup puts things.
export PATH := $(PATH):$(HOME)/.cargo/bin

# $(call need,program ...,package ...)
define need
	@missing=; for program in $(1); do command -v $$program >/dev/null 2>&1 || missing=1; done; \
	[ -z "$$missing" ] && exit 0; $(call install,$(2))
endef

# $(call install,package ...), inside a recipe's line
define install
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "installing $(1)"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -q </dev/null && \
		apt-get install -y -q --no-install-recommends $(1) </dev/null && exit 0; \
	fi; \
	echo "please install: $(1)" >&2; exit 1
endef

help:
	@echo "make run    build the gateway and start it with a data directory of its own"
	@echo "make cluster       three nodes, PostgreSQL, Redis and an S3 service on the loopback"
	@echo "make cluster-down  stop them"
	@echo "make test   formatting, lints, every test: one development build"
	@echo "make check  the slow rest: docs, licences, fuzzing, release build, benches"
	@echo "make faults three nodes under a roll-out, while nodes and stores fail; part of make check"
	@echo "make bench  measure, with a table and plots; make soak: for 20 minutes"
	@echo "make bench-console  what the console's pages cost; part of make bench"
	@echo "make bench-cluster  measure three nodes against one, and kill one of them"
	@echo "make bench-rolling  restart three nodes one by one under a roll-out and telemetry"
	@echo "make bench-certificates  change certificates under load"
	@echo "make lint   formatting, lints, layers only"
	@echo "make tools  install cargo-nextest, cargo-deny and cargo-fuzz"

# --- run ------------------------------------------------------------------------------------------

# Without what DTLS is built with there is no CoAP over DTLS, and all the rest.
run: build-tools
	@if $(MAKE) dtls-tools; then \
		set -x; $(CARGO) run --release --locked -- serve; \
	else \
		echo "5684 is off: this build cannot speak DTLS" >&2; \
		set -x; $(CARGO) run --release --locked --no-default-features --features console -- serve; \
	fi

.PHONY: build-tools
build-tools:
	@command -v $(CARGO) >/dev/null 2>&1 || \
		{ echo "please install Rust 1.95 or newer: https://rustup.rs" >&2; exit 1; }
	$(call need,cc c++,gcc g++ libc6-dev)

# What headgate-dtls is built with: C, and bindings that are made from its headers.
LIBCLANG := ls $${LIBCLANG_PATH:-/nowhere}/libclang*.so* /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* \
	/usr/lib64/libclang*.so* 2>/dev/null | grep -q .

.PHONY: dtls-tools
dtls-tools:
	@command -v cmake >/dev/null 2>&1 && command -v make >/dev/null 2>&1 && { $(LIBCLANG); } && exit 0; \
	$(call install,cmake make libclang-dev)

# --- cluster ---------------------------------------------------------------------------------------

# What the nodes and their stores keep, and how many nodes there are.
CLUSTER := $(or $(CARGO_TARGET_DIR),target)/cluster
export NODES ?= 3

.PHONY: cluster cluster-down
cluster: build-tools dtls-tools
	@command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ $(call install,postgresql); }
	$(call need,redis-server redis-cli curl python3,redis-server curl ca-certificates python3)
	@python3 -c 'import ensurepip' 2>/dev/null || { $(call install,python3-venv); }
	@$(MAKE) $(CLIENTS)/s3/made
	$(CARGO) build --release --locked
	@sh deploy/cluster.sh up $(CLUSTER) "$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/headgate)" \
		"$$(realpath $(CLIENTS)/s3/bin/moto_server)"

cluster-down:
	@sh deploy/cluster.sh down $(CLUSTER)

# --- test -----------------------------------------------------------------------------------------

# Other people's clients, from the lists in gateway/tests/clients; made anew when a list changes.
CLIENTS := $(or $(CARGO_TARGET_DIR),target)/tmp/clients
LISTS := gateway/tests/clients
# What the console's tests steer a browser with; the browser itself is the system's.
BROWSER := $(or $(CARGO_TARGET_DIR),target)/tmp/browser

test: build-tools dtls-tools test-tools fmt clippy unit doctest icount

test-tools: test-clients $(CLIENTS)/prometheus/made
	@command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ $(call install,postgresql); }
	$(call need,chromium,chromium fonts-dejavu-core)
	$(call need,mosquitto sqlite3,mosquitto sqlite3)
	$(call need,mosquitto_sub mosquitto_pub curl jq systemd-analyze coap-client-notls coap-client-openssl coap-client-gnutls openssl redis-server redis-cli faketime,mosquitto-clients curl jq ca-certificates systemd libcoap3-bin openssl redis-server faketime)
	@ls /usr/include/mosquitto.h /usr/include/coap3/coap.h /usr/include/openssl/evp.h >/dev/null 2>&1 || \
		{ $(call install,libmosquitto-dev libcoap3-dev libssl-dev); }
	@ls /usr/lib/nginx/modules/ngx_stream_module.so >/dev/null 2>&1 || { $(call install,nginx-light libnginx-mod-stream); }

.PHONY: test-clients
test-clients:
	$(call need,python3 node npm,python3 python3-venv nodejs npm)
	@python3 -c 'import ensurepip' 2>/dev/null || { $(call install,python3-venv); }
	@$(MAKE) $(CLIENTS)/tencent/made $(CLIENTS)/python/made $(CLIENTS)/openapi/made $(CLIENTS)/s3/made $(CLIENTS)/coaps/made $(CLIENTS)/deploy/made $(CLIENTS)/made $(BROWSER)/made

# pycrypto, which Tencent's SDK names, builds nowhere any more; the list has what stands in for it.
$(CLIENTS)/tencent/made: $(LISTS)/requirements-tencent.txt
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q --no-deps --disable-pip-version-check -r $<
	touch $@

# A service that speaks S3's protocol.
$(CLIENTS)/s3/made: $(LISTS)/requirements-s3.txt
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

# Clients of DTLS, one of which is compiled.
$(CLIENTS)/coaps/made: $(LISTS)/requirements-coaps.txt
	$(call need,cc autoconf automake python3-config,gcc libc6-dev autoconf automake python3-dev)
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

$(CLIENTS)/python/made: $(LISTS)/requirements.txt
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

# A parser of Dockerfiles, and the schema of Compose files: docker-compose brings it, and is not run.
$(CLIENTS)/deploy/made: $(LISTS)/requirements-deploy.txt
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check -r $<
	$(@D)/bin/pip install -q --disable-pip-version-check --no-deps docker-compose==1.29.2
	touch $@

# Has libraries of its own, of versions of its own.
$(CLIENTS)/openapi/made: $(LISTS)/requirements-openapi.txt
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

# The programs alone: installing the package would start it.
$(CLIENTS)/prometheus/made:
	rm -rf $(@D) && mkdir -p $(@D)
	@if command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1; then exit 0; fi; \
	if ! command -v apt-get >/dev/null 2>&1; then echo "please install: prometheus" >&2; exit 1; fi; \
	cd $(@D) && { apt-get download -q prometheus 2>/dev/null || \
		{ apt-get update -q </dev/null && apt-get download -q prometheus; }; } && \
	dpkg -x prometheus_*.deb . && rm prometheus_*.deb
	touch $@

$(CLIENTS)/made: $(LISTS)/package.json $(LISTS)/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)/
	cd $(@D) && npm ci --silent --no-audit --no-fund
	touch $@

$(BROWSER)/made: gateway/tests/browser/package.json gateway/tests/browser/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)/
	cd $(@D) && npm ci --silent --no-audit --no-fund
	touch $@

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(MEMBERS) --all-targets --locked -- -D warnings

# Building nextest takes longer than all tests: without it the same tests run by cargo itself.
unit:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; $(CARGO) nextest run $(MEMBERS) --locked; \
	else \
		set -x; $(CARGO) test $(MEMBERS) --lib --bins --tests --no-fail-fast --locked; \
	fi

doctest:
	$(CARGO) test --doc $(MEMBERS) --locked

# Instructions of the hot paths, which are the same on a busy machine: see protocol/hot_paths.py.
HOT_PATHS := $(or $(CARGO_TARGET_DIR),target)/release/examples/hot_paths
# As releases are built, whatever this shell asks of other builds.
ICOUNT := env -u RUSTFLAGS CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_OPT_LEVEL=3
.PHONY: icount icount-write
icount:
	$(call need,valgrind,valgrind)
	$(ICOUNT) $(CARGO) build --release --locked -p headgate-protocol --example hot_paths
	python3 protocol/hot_paths.py $(HOT_PATHS)

icount-write:
	$(ICOUNT) $(CARGO) build --release --locked -p headgate-protocol --example hot_paths
	python3 protocol/hot_paths.py $(HOT_PATHS) --write

lint: build-tools dtls-tools fmt clippy
	$(CARGO) test -p headgate --test it --locked -- layers

# --- check ----------------------------------------------------------------------------------------

check: build-tools dtls-tools fallback doc deny differential fuzz faults release bench-smoke image

# The Dockerfile's steps in a Debian of its own, where this user may make one: everything is compiled there once more.
.PHONY: image
image: $(CLIENTS)/deploy/made
	@if [ "$$(id -u)" != 0 ]; then echo "the image was not tried: only root can"; exit 0; fi; \
	$(MAKE) image-tools && TERM=dumb $(CLIENTS)/deploy/bin/python deploy/docker/try.py

.PHONY: image-tools
image-tools:
	$(call need,debootstrap,debootstrap)

# The other way of carrying devices (docs/decisions/0021) compiles and passes the same tests.
.PHONY: fallback
fallback:
	$(CARGO) clippy -p headgate --features buffered-tls --all-targets --locked -- -D warnings
	$(CARGO) test -p headgate --features buffered-tls --lib --locked -- edge::tls
	$(CARGO) test -p headgate --features buffered-tls --test it --locked -- tls:: transfer:: web::

# A roll-out to DEVICES over three nodes while nodes and stores fail, in the order that each of SEEDS gives.
SEEDS ?= 1
.PHONY: faults
faults: build-tools dtls-tools test-tools
	@for seed in $(SEEDS); do \
		HEADGATE_FAULTS_SEED=$$seed HEADGATE_FAULTS_DEVICES=$(or $(DEVICES),200) \
			$(CARGO) nextest run $(MEMBERS) --locked --no-capture -E 'test(/^faults::/)' || exit 1; \
	done

# For those who work on it: links to private items lead somewhere.
doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc $(MEMBERS) --no-deps --document-private-items --locked

# Advisories come from a database on GitHub: looked at only where that can be reached.
deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check bans licenses sources
	@if timeout 20 git ls-remote -q https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; then \
		set -x; $(CARGO) deny --locked check advisories; \
	else \
		echo "advisories were not checked: the database cannot be reached"; \
	fi

# What it compares with is in no other build: see docs/decisions/0016.
differential:
	$(CARGO) test --locked --manifest-path protocol/differential/Cargo.toml

fuzz:
	@if [ ! -d protocol/fuzz ]; then echo "no fuzz targets"; exit 0; fi; \
	if ! $(CARGO) +nightly --version >/dev/null 2>&1; then \
		echo "fuzzing was left out: no nightly toolchain"; exit 0; \
	fi; \
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz || exit 1; \
	cd protocol && for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

release:
	$(CARGO) build --release --locked -p headgate -p headgate-loadtest

# Headgate is built by itself, never together with the benches: one build of both would give it the
# features that its peers ask for.
bench-smoke: release
	$(CARGO) clippy -p headgate-benches --all-targets --locked -- -D warnings
	$(CARGO) test --release -p headgate-benches --bins --locked
	$(CARGO) bench -p headgate-benches --locked -- --test
	$(CARGO) run --release -p headgate-benches --locked -- --quick
	$(call need,nm python3,binutils python3)
	python3 benches/console.py --quick $(PROGRAMS)

# The gateway and the swarm, as `release` leaves them.
PROGRAMS = $(addprefix $(or $(CARGO_TARGET_DIR),target)/release/,headgate swarm)

# The table goes to the terminal; figures, table and plots to RESULTS.json and RESULTS.html.
RESULTS ?= bench
bench: release
	$(call need,nginx python3,nginx-light python3)
	$(call need,mosquitto,mosquitto)
	$(call need,coap-server-notls coap-server-openssl openssl,libcoap3-bin openssl)
	$(CARGO) run --release -p headgate-benches --locked -- --json $(RESULTS).json
	python3 benches/plots.py $(RESULTS).json $(RESULTS).html
	$(CARGO) bench -p headgate-benches --locked
	@$(MAKE) bench-console

# What the console adds to the program is seen beside a program without it.
.PHONY: bench-console
bench-console:
	$(call need,nm python3,binutils python3)
	$(CARGO) build --release --locked -p headgate --no-default-features --features coaps
	cp $(firstword $(PROGRAMS)) $(firstword $(PROGRAMS))-api
	@$(MAKE) release
	python3 benches/console.py --without $(firstword $(PROGRAMS))-api $(PROGRAMS)

# DEVICES a node, SIZE of the resource: the bars are for 19,000 and 256KiB.
.PHONY: bench-cluster
bench-cluster: release
	@$(MAKE) $(CLIENTS)/s3/made
	$(call need,redis-server redis-cli curl psql,redis-server curl ca-certificates postgresql)
	@sh benches/cluster.sh "$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/headgate)" \
		"$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/swarm)" "$$(realpath $(CLIENTS)/s3/bin/moto_server)"

# DEVICES take a resource and TALKERS publish through a balancer, while one node after the other is restarted.
.PHONY: bench-rolling bench-certificates
bench-rolling: release
	@$(MAKE) $(CLIENTS)/s3/made
	$(call need,redis-server curl python3,redis-server curl ca-certificates python3)
	@ls /usr/lib/nginx/modules/ngx_stream_module.so >/dev/null 2>&1 || { $(call install,nginx-light libnginx-mod-stream); }
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || { $(call install,postgresql); }
	@sh benches/rolling.sh "$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/headgate)" \
		"$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/swarm)" "$$(realpath $(CLIENTS)/s3/bin/moto_server)"

# DEVICES publish for LENGTH seconds, while their gateway's certificate changes EVERY so many.
bench-certificates: release
	$(call need,openssl curl python3,openssl curl ca-certificates python3)
	@sh benches/certificates.sh "$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/headgate)" \
		"$$(realpath $(or $(CARGO_TARGET_DIR),target)/release/swarm)"

# Twenty minutes at 5,000 devices with links that come and go: the gateway's memory stays within 3 %
# over the last fifteen, and no acknowledged message is lost.
SOAK ?= 20m
.PHONY: soak
soak: release
	@data=$$(mktemp -d); trap 'kill $$pid 2>/dev/null; rm -rf $$data' EXIT; \
	bin=$(or $(CARGO_TARGET_DIR),target)/release; \
	$$bin/headgate serve --data-dir $$data >/dev/null 2>$$data.log & pid=$$!; \
	until [ -e $$data/ports.json ]; do kill -0 $$pid || exit 1; sleep 0.2; done; \
	$$bin/swarm soak --data-dir $$data -c 5000 -R 500 -I 5000 --for $(SOAK) --server-pid $$pid \
		--html soak.html --json soak.json --fail-if 'lost=0,failed=0,reconnects=0,rss_growth<3%'

tools:
	$(CARGO) install --locked cargo-nextest cargo-deny cargo-fuzz
