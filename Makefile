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

.DEFAULT_GOAL := help
.PHONY: help run test test-vm bench bench-lab mutate clean-lab fuzz

help: ## show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || sed -nE 's/^([a-z-]+):.*## (.*)/  make \1   \2/p' $(firstword $(MAKEFILE_LIST))

run: ## the two-node lab, until Ctrl-C (ONCE=1: run its table and exit; HOOKS=xdp|both; BACKEND=reference; LAB_ARGS=...)
	@scripts/preflight run
	cargo build --release --bin lab --bin loxilightd --bin loxi-agent --bin loxi-cni --bin llcli
	$(SUDO) $(LAB) run --backend $(BACKEND) --hooks $(HOOKS) $(if $(ONCE),--once) $(LAB_ARGS)

test: ## everything that CI holds the tree to
	@scripts/test

test-vm: ## tests that depend on the kernel, under Debian's 6.1 and 6.12 in virtual machines (KERNELS=6.1: only that)
	@scripts/test-vm $(KERNELS)

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
