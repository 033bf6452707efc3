# make test   everything CI runs: format, lints, unit, property, simulation and vdev tests, a short lab
# make demo   real TCP and UDP between Linux hosts over two paths; table, target/demo/{result.json,report.html}
# make bench  packets per second of one core, latency and TCP against dpdk-testpmd in the same run, under ten
#             minutes; target/bench/result.json
# All install the Debian packages they miss, and need nothing else but Rust. The lab parts need root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
ROOT := $(filter 0,$(shell id -u))
# Scenarios whose goals are about correctness alone: a slow machine does not fail them.
SHORT_LAB := cross-open short-connections conservation policy

.PHONY: test demo bench build check unit lab purity packages clean help

help:
	@sed -n '1,5s/^# //p' Makefile

packages:
	@.ci/packages $(if $(ROOT),all,build)

test: packages check purity unit lab
	@echo "make test: all passed"

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# The engine must stay free of DPDK.
purity:
	@if $(CARGO) tree -e normal -p mpip-core --prefix none | grep -E '^dpdk'; then \
	  echo "mpip-core depends on DPDK; it must not" >&2; exit 1; fi
	@echo "mpip-core depends on no DPDK"

unit:
	$(CARGO) test --workspace

build: packages
	$(CARGO) build --release --workspace

lab: build
ifeq ($(ROOT),0)
	@for s in $(SHORT_LAB); do $(TARGET)/release/mpip-bench lab $$s || exit 1; done
	@$(TARGET)/release/mpip-bench lab papers --only R8 --scheduler adaptive --seconds 2 || { \
	  [ $$? = 3 ] && echo "make test: the row of the papers ran; its goal is about speed and is not judged here"; }
else
	@echo "make test: not root, so the lab (network namespaces, AF_XDP, TAP) is left out; everything else has run"
endif

demo: build
ifeq ($(ROOT),0)
	@$(TARGET)/release/mpip-bench demo --out $(TARGET)/demo || { \
	  [ $$? = 3 ] && echo "make demo: some goals were missed, see NO in the table; everything ran"; }
else
	@echo "make demo needs root: it makes network namespaces, veth pairs and AF_XDP sockets. Run: sudo make demo" >&2
	@exit 1
endif

# Arms run at a higher priority than what else the machine does, where that is allowed.
bench: build
	@.ci/packages bench
	@$(if $(ROOT),nice -n -5) $(TARGET)/release/mpip-bench speed --json $(TARGET)/bench/result.json || { \
	  [ $$? = 3 ] && echo "make bench: some goals were missed, see NO in the table; everything ran"; }

clean:
	$(CARGO) clean
