# The whole interface is `make help`. What the targets do is in scripts/ and in
# the binaries that they start.

SHELL := /bin/bash
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
LAB := $(TARGET)/release/lab
# Builds run as you are; only the lab needs root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
BACKEND ?= ebpf
HOOKS ?= tc
FUZZ_SECONDS ?= 30
# Root's home is another.
E2E_CACHE := $(or $(LOXI_E2E_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/loxi/e2e)

.DEFAULT_GOAL := help
.PHONY: help run test test-vm e2e-deps e2e bench bench-lab mutate clean-lab fuzz

help: ## show this
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1   \2/p' $(firstword $(MAKEFILE_LIST))

run: ## the two-node lab, until Ctrl-C (ONCE=1: run its table and exit; HOOKS=xdp|both; BACKEND=reference; LAB_ARGS=...)
	@scripts/preflight run
	cargo build --release --bin lab --bin loxilightd --bin loxi-agent --bin loxi-cni --bin llcli
	$(SUDO) $(LAB) run --backend $(BACKEND) --hooks $(HOOKS) $(if $(ONCE),--once) $(LAB_ARGS)

test: ## everything that CI holds the tree to
	@scripts/test

test-vm: ## tests that depend on the kernel, under Debian's 6.1 and 6.12 in virtual machines (KERNELS=6.1: only that)
	@scripts/test-vm $(KERNELS)

e2e-deps: ## Kubernetes for make e2e, built from its modules and kept (10 minutes and Go at first, nothing after that)
	@scripts/preflight e2e-deps
	@e2e/build

e2e: ## a real Kubernetes of two nodes on loxi: conformance tests of its network (CNI=reference: the control; KEEP=1: stays)
	@scripts/preflight e2e
	cargo build --release --bin loxilightd --bin loxi-agent --bin loxi-cni --bin llcli
	$(SUDO) env LOXI_E2E_CACHE="$(E2E_CACHE)" CARGO_TARGET_DIR="$(abspath $(TARGET))" CNI="$(CNI)" KEEP="$(KEEP)" e2e/run

mutate: ## wrong eBPF programs, for the conformance rows to notice (ONLY=9: of that stage; ONLY=affinity: by a word)
	@cargo xtask ebpf --mutate $(ONLY)

bench: ## throughput of each backend on this machine
	@scripts/preflight bench
	cargo bench --workspace

bench-lab: ## TCP between pods on the lab, in turns with plain Linux (LAB_ARGS='-o json')
	@scripts/preflight run
	cargo build --release --bin lab --bin loxilightd --bin loxi-agent --bin loxi-cni
	$(SUDO) $(LAB) bench --backend $(BACKEND) $(LAB_ARGS)

clean-lab: ## remove what a killed lab left behind, by its labels only
	@test -x $(LAB) || cargo build --release --bin lab
	$(SUDO) $(LAB) clean $(LAB_ARGS)

fuzz: ## each fuzz target for a moment (FUZZ_SECONDS=30)
	@scripts/fuzz $(FUZZ_SECONDS)
