# Every target needs a Rust toolchain and nothing else: what is missing on Debian 12 is installed.

PREFIX ?= /usr/local
DESTDIR ?=
# polkit reads rules here and in /usr/share, and below /usr/local only from version 124 on.
POLKIT_RULES ?= $(if $(filter /usr,$(PREFIX)),/usr/share,/etc)/polkit-1/rules.d
# Where `make deb` leaves the package.
DEB_DIR ?= target

CARGO ?= cargo
LAB = tests/lab
PACKAGES = -p signet-cli -p signet-agent

.PHONY: help demo test test-card lint bench fuzz soak lab install install-system dist deb peers

help:
	@echo 'make demo     sign an image on push, pull it with docker, see an unsigned one refused'
	@echo 'make test     every test, against real peers; ends with its count'
	@echo 'make test-card SERIAL=N  what harms no card, on a real YubiKey; ends with a report'
	@echo 'make lint     formatting, clippy, documentation, dependencies'
	@echo 'make lab      start the real peers and stay, for use by hand'
	@echo 'make bench    the table of figures'
	@echo 'make fuzz     every fuzz target, FUZZ_SECONDS each (60)'
	@echo 'make soak     SOAK_POINTS random crash points (200), backups and moves, SOAK_SIGNATURES by a card (1000)'
	@echo 'make install  into PREFIX (/usr/local), below DESTDIR'
	@echo 'make deb      a Debian package'

# The real peers of the tests, from Debian's packages.
peers:
	@$(LAB)/install.sh

demo: peers
	$(CARGO) build --locked --workspace --bins
	@$(LAB)/lab run $(LAB)/demo

test: peers
	@$(LAB)/test

lint:
	@.ci/lint

lab: peers
	@$(LAB)/lab up

# The binaries as they are shipped: built together with the tests they would have the features of
# both, TLS for the agent among them.
bench: peers
	$(CARGO) build --release --locked -p signet-tests -p signet-virtual-yubikey --bins
	$(CARGO) build --release --locked $(PACKAGES)
	@target/release/signet-bench

FUZZ_SECONDS ?= 60
fuzz:
	@tests/fuzz/run $(FUZZ_SECONDS)

SOAK_POINTS ?= 200
SOAK_SIGNATURES ?= 1000
soak: peers
	@$(LAB)/soak $(SOAK_POINTS) $(SOAK_SIGNATURES)

# What changes nothing on a real YubiKey, and the report for docs/hardware.md.
SERIAL ?=
test-card: peers
	@$(LAB)/lab run $(LAB)/test-card $(SERIAL)

# What is shipped: the two binaries, man pages and completions.
dist:
	@$(LAB)/install.sh build
	$(CARGO) build --release --locked $(PACKAGES)
	rm -rf target/dist && mkdir -p target/dist/man
	target/release/signet man target/dist/man
	target/release/signet completions bash >target/dist/signet.bash
	target/release/signet completions zsh >target/dist/_signet
	target/release/signet completions fish >target/dist/signet.fish

# Rules and units by which a host lets the agent at the cards; `install` calls it.
install-system:
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/udev/rules.d udev/93-signet-yubikey.rules
	install -D -m 644 -t $(DESTDIR)$(POLKIT_RULES) udev/50-signet-pcsc.rules
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/sysusers.d udev/signet.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/user udev/signetd.socket udev/signetd.service
	sed -i 's|@bindir@|$(PREFIX)/bin|' $(DESTDIR)$(PREFIX)/lib/systemd/user/signetd.service

# Not as root by way of sudo's cargo: `make dist` first, then `sudo make install`.
install: install-system $(if $(wildcard target/dist/signet.fish),,dist)
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin target/release/signet target/release/signetd
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 target/dist/man/*.1
	install -D -m 644 target/dist/signet.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/signet
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions target/dist/_signet
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d target/dist/signet.fish

deb: dist
	@.ci/deb $(DEB_DIR)
