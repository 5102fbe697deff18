# bonding: build, try, test. Needs a Rust toolchain and a C linker; the demo and the end-to-end tests need root, or a
# user namespace in which /dev/net/tun can be opened.

CARGO ?= cargo

.PHONY: help build demo test soak bench-bond bench-core bench-raw test-luci lint clean

help:
	@echo 'make build   the program: target/release/bonding'
	@echo 'make demo    two emulated ADSL lines joined into one, to look at (about a minute and a half)'
	@echo 'make test    every test; those over real network namespaces need root'
	@echo 'make soak    ten minutes of load, watching memory'
	@echo 'make test-luci    the web pages in a headless Chromium (needs node, npm, chromium); pictures in target/luci'
	@echo 'make bench-bond   goodput, ping, cuts and changes over emulated lines (about seven minutes)'
	@echo '                  SCENARIOS=more: other lines and other loads (about twelve minutes)'
	@echo 'make bench-core   instructions for each packet, the same in every run (about two minutes; needs valgrind)'
	@echo 'make test-openwrt ROOTFS=FILE    the package on a real OpenWrt, from install to remove (about two minutes)'
	@echo 'make bench-raw    speed with no line in the way, beside OpenVPN and wireguard-go, and a server with many routers (six minutes)'
	@echo 'make cross TARGET=mipsel        a static program for a router: x86_64, aarch64, armv7hf, mipsel, mips'
	@echo 'make ipk ARCH=mipsel_24kc       its packages for opkg; make apk for apk (OpenWrt 25.12 and later)'
	@echo 'make deb     a package for Debian: dist/bonding_VERSION_ARCH.deb (ARCH=amd64, arm64 or armhf)'
	@echo 'make lint    formatting and lints'
	@echo 'make clean   remove what was built'
	@echo 'make test-kernel  kernel mode under kernels of Debian in QEMU, fetched by apt (about four minutes)'
	@echo 'make test-systemd [ROOTFS=FOLDER]  the package on a Debian that systemd boots in a container (about a minute)'

build:
	$(CARGO) build --release

demo:
	$(CARGO) build --release --bin bonding
	$(CARGO) build --release --package lab --bin demo
	@target/release/demo target/release/bonding

# BENCH='--scenario asym2' measures less; BENCH='--runs 5 --document docs/performance.md' renews the document. SCENARIOS=more
# measures other lines and loads instead (about twelve minutes; BENCH='--case cellular' some of them).
BENCH ?=
SCENARIOS ?=

bench-bond:
	$(CARGO) build --release --bin bonding
	$(CARGO) build --release --package lab --bin bench-bond
	@target/release/bench-bond target/release/bonding $(if $(filter more,$(SCENARIOS)),--only more) $(BENCH)

# CORE='--document docs/performance.md' renews the document.
CORE ?=

bench-core:
	$(CARGO) bench --bench instructions -- $(CORE)

# Needs root for the others' packages to be installed on Debian; skips what is missing.
# RAW='--document docs/performance.md' renews the document.
RAW ?=

bench-raw:
	$(CARGO) build --release --bin bonding
	$(CARGO) build --release --package lab --bin bench-raw
	@target/release/bench-raw target/release/bonding --json target/bench-raw.json $(RAW)
	$(CARGO) bench $(PROFILE) --bench many_peers -- $(CURDIR)/target/release/bonding $(RAW)

.PHONY: cross test-cross sizes test-openwrt ipk apk

# A router's program and its packages. TARGET: x86_64, aarch64, armv7hf, mipsel, mips; ARCH: OpenWrt's word for it.
cross:
	@scripts/cross $(TARGET)

# Runs it, and the tests of keys, ciphers, sessions and configuration, by qemu-user.
test-cross:
	@scripts/test-cross $(TARGET)

# How large it is for each kind of router.
sizes:
	@scripts/sizes

# From opkg install to opkg remove. ROOTFS: a folder, or the rootfs.tar.gz of an x86_64 image.
test-openwrt:
	@tests/openwrt/run $(ROOTFS)

ipk apk:
	@scripts/package $@ $(ARCH)

# A package for Debian and its kin, with a static program.
.PHONY: deb
deb:
	@scripts/deb $(ARCH)

# It installed where systemd is, behind ufw and firewalld, and gone again. ROOTFS: an unpacked Debian; it is fetched by
# debootstrap where none is given. PROGRAM: a program that is built already.
.PHONY: test-systemd
test-systemd:
	@tests/systemd/run $(ROOTFS)

# Quick tests first. One profile, optimised but quickly linked, so that nothing is built twice. The end-to-end tests
# measure rates: two at a time leave the emulated lines enough of two cores.
PROFILE := --profile simulation

test:
	$(CARGO) test $(PROFILE) --workspace --lib --bins --test config_errors --test simulation
	$(CARGO) test $(PROFILE) --package lab --test '*' -- --test-threads=2
	$(CARGO) test $(PROFILE) --test end_to_end -- --test-threads=2

# Ten minutes of load, with no growth of memory.
soak:
	$(CARGO) test $(PROFILE) --test end_to_end -- --ignored --nocapture ten_minutes

# The pages of luci-app-bonding over a real bond in the laboratory; with ROOTFS=FOLDER, the unpacked root file system of
# an OpenWrt for this processor, in the real LuCI as well (root; Rust's target for musl).
NPM ?= npm
ROOTFS ?=
MUSL := $(shell uname -m)-unknown-linux-musl

export ROOTFS

test-luci:
	$(CARGO) build $(PROFILE) --bin bonding
	$(CARGO) build $(PROFILE) --package lab --bin stage
	$(if $(ROOTFS),CC_$(subst -,_,$(MUSL))=$(CC) $(CARGO) build $(PROFILE) --target $(MUSL) --bin bonding)
	cd tests/luci && $(NPM) ci --no-audit --no-fund --silent && $(NPM) run --silent lint && $(NPM) run --silent test

# The kernel's bonding driver, as it is and patched: kernels, headers and source come from Debian's archive. What is
# missing of QEMU, BusyBox and the like is installed where this is run as root.
.PHONY: test-kernel

test-kernel:
	CARGO='$(CARGO)' tests/kernel/run

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(PROFILE) --workspace --all-targets -- --deny warnings

clean:
	$(CARGO) clean
