# `make demo` and `make test` do everything, on a fresh Debian or Ubuntu with Python 3.11:
# each makes what it needs, and the second time that is quick.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test
.PHONY: bench bench-peers clean demo fuzz gate kube-image lint proto test test-cluster wheel

NAMES := python3.11 python3.12 python3.13 python3.14 python3
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) and print(sys.argv[1])
PYTHON = $(firstword $(foreach name,$(NAMES), \
    $(shell $(name) -c "$(NEW_ENOUGH)" $(name) 2>/dev/null)))
BIN := .venv/bin
ROOM := src/tunstack/_fastpath

# Namespaces and TUN devices are made by root; without it those tests are skipped.
AS_ROOT = $(shell ((!EUID)) || ! sudo -n true 2>/dev/null || echo sudo -n)

# Against a real Kubernetes, of one node, on this machine: KUBE_LAB is where its scripts are.
KUBE_LAB ?= ../shared/kube

# What tests/replay plays to the stack.
export CAPTURES ?= ../shared/pcaps

# System tests of what the transport carries: they run on both. The others are of what is
# in front of it.
CARRIED = datagrams endings idle pressure reconnect sessions transfers truth variants

# What others do in the same run: the directory of the harness, which of its adapters, how
# often each.
PEERS ?= ../shared/peers
PEERS_ADAPTERS ?= direct wireguard tunstack
PEERS_RUNS ?= 3

# The regression gate: RENEW=1 writes benchmarks/baseline.json. Which parts; all without.
RENEW ?=
GATE_PARTS ?=

# Seconds for each target, and which: kernels, parse, mux, stack, properties; all without.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=

demo: .venv/built
	$(AS_ROOT) $(BIN)/tunstack demo

test: lint .venv/go/built
	$(BIN)/pytest --ignore=tests/system --ignore=tests/host --ignore=tests/kube \
	    --ignore=tests/upstream
	$(AS_ROOT) env KUBE_LAB=$(KUBE_LAB) $(BIN)/pytest -p no:cacheprovider \
	    tests/host tests/upstream tests/system tests/kube
	$(AS_ROOT) env TUNSTACK_SYSTEM_TRANSPORT=stock $(BIN)/pytest -p no:cacheprovider \
	    $(CARRIED:%=tests/system/test_%.py)
	$(BIN)/pytest --fastpath=reference --ignore=tests/system --ignore=tests/host \
	    --ignore=tests/rpc --ignore=tests/interop --ignore=tests/kube \
	    --ignore=tests/cluster --ignore=tests/upstream --ignore=tests/dns --ignore=tests/cli \
	    --ignore=tests/netsim --ignore=tests/replay --ignore=tests/fuzz \
	    --ignore=tests/_fastpath/test_sanitizers.py

test-cluster: .venv/built
	$(AS_ROOT) env KUBE_LAB=$(KUBE_LAB) TUNSTACK_CLUSTER=required \
	    $(BIN)/pytest -p no:cacheprovider tests/kube

kube-image: .venv/built
	$(AS_ROOT) .ci/kube-image $(KUBE_LAB) $(BIN)/python

lint: .venv/built
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fuzz: .venv/built
	.ci/packages $(PYTHON) clang
	.ci/packages $(PYTHON) libclang-rt-$$(clang -dumpversion | cut -d. -f1)-dev
	tests/fuzz/run $(BIN)/python $(FUZZ_SECONDS) $(FUZZ_TARGETS)

bench: .venv/built
	$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider benchmarks --benchmark-max-time=0.3 \
	    --benchmark-group-by=func --benchmark-columns=median,iqr,rounds

bench-peers: .venv/built
	$(AS_ROOT) env RUNS=$(PEERS_RUNS) benchmarks/peers $(PEERS) $(BIN)/tunstack $(PEERS_ADAPTERS)

gate: .venv/built
	$(AS_ROOT) .ci/gate $(BIN)/python $(if $(RENEW),--renew) $(GATE_PARTS)

wheel: .venv/built
	$(BIN)/python -m build --outdir dist

proto: .venv/built
	$(BIN)/python -m grpc_tools.protoc --proto_path=src --python_out=src --pyi_out=src \
	    src/tunstack/rpc/tunnel.proto

clean:
	rm -rf .venv build dist *.egg-info $(ROOM)/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/packages: .ci/packages
	test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed" >&2; exit 1; }
	.ci/packages $(PYTHON)
	mkdir -p .venv
	touch $@

.venv/installed: .venv/packages pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv/go/built: .venv/installed .ci/go-programs
	.ci/go-programs .venv/go/bin $(BIN)/python
	touch $@

.venv/built: .venv/installed build_ext.py $(wildcard $(ROOM)/*.[ch])
	$(BIN)/python build_ext.py
	touch $@
