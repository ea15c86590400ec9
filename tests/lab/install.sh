#!/bin/bash
# Installs the real peers that the tests run against, on Debian 12. Safe to run again and again:
# what is there is left alone, and with everything there it neither uses the network nor root.
#
# Starts no service: the lab starts its own copies, on loopback, in a throwaway directory.
#
# Usage: install.sh [build]   with `build` only what `make dist` needs
#
#   SIGNET_LAB_CACHE   where Debian 13's Docker CLI and PyPI's ykman are kept
#                      (default ~/.cache/signet-lab)
set -euo pipefail

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

cache=${SIGNET_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/signet-lab}

# A program that must run, and the package that brings it. Programs are asked for, not packages,
# so that a toolchain from elsewhere counts.
wanted=(
  'gcc gcc'
  'make make'
  'pkg-config pkg-config'
  'git git'
  'curl curl'
  'python3 python3'
  'openssl openssl'
  'age age'
  'jq jq'
  'sqlite3 sqlite3'
  'strace strace'
  'systemd-analyze systemd'
  'systemd-socket-activate systemd'
  'tmux tmux'
  '/usr/bin/pinentry-curses pinentry-curses'
  'script bsdutils'
  'unshare util-linux'
  'ssh openssh-client'
  '/usr/sbin/sshd openssh-server'
  '/bin/mount mount'
  '/usr/bin/docker docker.io'
  '/usr/sbin/dockerd docker.io'
  '/usr/bin/containerd containerd'
  '/usr/bin/docker-registry docker-registry'
  '/usr/bin/notary notary'
  '/usr/bin/notary-server notary'
  '/usr/bin/notary-signer notary'
  '/etc/ssl/certs/ca-certificates.crt ca-certificates'
  '/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring'
  '/usr/include/stdio.h libc6-dev'
  # The card tests: a PC/SC daemon, the reader that takes a card from a socket, and clients of
  # cards that others wrote.
  'ip iproute2'
  'nsenter util-linux'
  '/usr/sbin/pcscd pcscd'
  '/usr/include/PCSC/winscard.h libpcsclite-dev'
  '/usr/lib/pcsc/drivers/serial/libifdvpcd.so vsmartcard-vpcd'
  '/usr/bin/ykman yubikey-manager'
  'yubico-piv-tool yubico-piv-tool'
  '/usr/lib/*/libykcs11.so.2 ykcs11'
  'pkcs11-tool opensc'
  '/usr/lib/*/opensc-pkcs11.so opensc-pkcs11'
  '/usr/lib/python3*/ensurepip/__init__.py python3-venv'
  '/usr/include/python3.*/Python.h python3-dev'
  # The desktop: a message bus, services mocked on it, and somebody who calls them.
  '/usr/bin/dbus-daemon dbus-daemon'
  '/usr/bin/gdbus libglib2.0-bin'
  '/usr/lib/python3/dist-packages/dbusmock/__main__.py python3-dbusmock'
)

# What compiling alone needs.
if [ "${1:-}" = build ]; then
  wanted=(
    'gcc gcc'
    'pkg-config pkg-config'
    '/usr/include/stdio.h libc6-dev'
    '/usr/include/PCSC/winscard.h libpcsclite-dev'
  )
fi

present() {
  case $1 in
    /*) compgen -G "$1" >/dev/null ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
  esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || die "needs root to run '$*', and there is no sudo"
  sudo "$@"
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Use-Pty=0 "$@"
}

# Debian asks this program before it starts a service that it has just installed.
policy=/usr/sbin/policy-rc.d
ours=
forbid_services() {
  [ -e $policy ] && return
  ours=yes
  printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
  as_root chmod 755 $policy
}
allow_services() { [ -z "$ours" ] || as_root rm -f $policy; }
trap allow_services EXIT

install_packages() {
  local entry missing=()
  for entry in "${wanted[@]}"; do
    present "${entry% *}" || missing+=("${entry#* }")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  say "installing ${missing[*]}"
  [ -e /etc/debian_version ] || die "this is not Debian; install by hand: ${missing[*]}"
  forbid_services
  # With package lists of today no update is needed; without them the first try fails at once.
  if ! apt_get install --no-install-recommends -y "${missing[@]}" >/dev/null 2>&1; then
    apt_get update || say "some package sources could not be read; going on with the others"
    apt_get install --no-install-recommends -y "${missing[@]}" >/dev/null \
      || die "apt-get could not install ${missing[*]}"
  fi
  for entry in "${wanted[@]}"; do
    present "${entry% *}" || die "${entry#* } is installed, yet ${entry% *} is missing"
  done
}

# Debian 13's Docker CLI, beside Debian 12's: apt with a state directory of its own, so that the
# machine's package lists know nothing of Debian 13, and unpacked, not installed.
fetch_trixie_docker() {
  local home=$cache/trixie arch deb
  [ -x "$home/usr/bin/docker" ] && return
  arch=$(dpkg --print-architecture)
  say "fetching Debian 13's docker-cli into $home"
  rm -rf "$home.new"
  mkdir -p "$home.new"/{state/lists/partial,cache/archives/partial,etc,deb}
  touch "$home.new/state/status"
  cat >"$home.new/etc/sources.list" <<EOF
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main
EOF
  local options=(
    -o Dir::Etc::SourceList="$home.new/etc/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
    -o Dir::State="$home.new/state" -o Dir::State::status="$home.new/state/status"
    -o Dir::Cache="$home.new/cache" -o APT::Architecture="$arch" -o APT::Architectures="$arch"
    -o APT::Sandbox::User= -o Acquire::Languages=none
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
  )
  apt-get -qq "${options[@]}" update || die "cannot read the package lists of Debian 13"
  (cd "$home.new/deb" && apt-get -qq "${options[@]}" download docker-cli) \
    || die "cannot fetch docker-cli of Debian 13"
  for deb in "$home.new"/deb/*.deb; do dpkg-deb -x "$deb" "$home.new"; done
  "$home.new/usr/bin/docker" --version >&2 || die "Debian 13's docker does not run here"
  rm -rf "$home.new"/{state,cache,etc,deb} "$home"
  mv "$home.new" "$home"
}

# The YubiKey manager of today, beside Debian's: Ed25519, and keys moved and deleted.
fetch_ykman() {
  local home=$cache/ykman version=5.9.2
  [ -x "$home/bin/ykman" ] && [ "$(cat "$home/signet-lab-version" 2>/dev/null)" = $version ] && return
  say "fetching ykman $version into $home"
  rm -rf "$home"
  mkdir -p "$cache"
  # Not made elsewhere and moved: a virtual environment holds its own path.
  python3 -m venv "$home" || die "python3 cannot make a virtual environment in $home"
  "$home/bin/pip" -q --disable-pip-version-check install "yubikey-manager==$version" \
    || die "cannot fetch yubikey-manager $version"
  "$home/bin/ykman" --version >&2 || die "ykman $version does not run here"
  echo $version >"$home/signet-lab-version"
}

check_rust() {
  PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  command -v cargo >/dev/null || die "no cargo: install a Rust toolchain first (https://rustup.rs)"
  local part
  for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 \
      || say "cargo $part is missing, 'make lint' needs it: rustup component add rust$part" \
      | sed 's/rustclippy/clippy/' >&2
  done
}

install_packages
if [ "${1:-}" != build ]; then
  fetch_trixie_docker
  fetch_ykman
fi
check_rust
