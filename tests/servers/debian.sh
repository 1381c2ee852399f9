#!/usr/bin/env bash
# Newer servers than this system's, and Ceph, from Debian's own archive, for `make soak`: each suite's packages are
# unpacked into a directory of ${XDG_CACHE_HOME:-~/.cache}/asya/suites, with the C library that they were built for, and
# nothing of the system is touched. Needs apt-get and Debian's keyring; no root. The mirror is the one that the system's
# own apt sources name; ASYA_DEBIAN_MIRROR (a URL that ends in /debian) overrides it.
set -euo pipefail
cache="${XDG_CACHE_HOME:-$HOME/.cache}/asya"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

command -v apt-get >/dev/null || {
  echo "missing: apt-get, which fetches the newer Redis and Valkey and the Ceph of make soak from Debian" >&2
  exit 1
}

# The mirror: what apt makes of the system's sources, in whichever form they are.
mirror() {
  local found=${ASYA_DEBIAN_MIRROR-}
  # shellcheck disable=SC2016  # apt-get replaces it
  [ -n "$found" ] || found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
    sort -u | grep -m 1 '/debian/*$') || {
    echo "missing: a mirror of Debian among this system's apt sources. Give one in ASYA_DEBIAN_MIRROR and run this again." >&2
    return 1
  }
  echo "$found"
}

# unpack SUITE PACKAGE...: once.
unpack() {
  local suite=$1 root="$cache/suites/$1"
  shift
  [ ! -e "$root/.$*" ] || return 0
  echo "fetching $* of Debian $suite (once)" >&2
  local mirror work
  mirror=$(mirror)
  work=$(mktemp -d)
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$root"
  touch "$work/status"
  # Experimental's packages lean on those of sid.
  for name in "$suite" sid; do echo "deb [signed-by=$keyring] $mirror $name main"; done | sort -u > "$work/sources.list"
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work"
    -o "Dir::Cache::archives=$work/archives" -o Debug::NoLocking=1 -o APT::Sandbox::User=
    -o Acquire::Languages=none -o "APT::Default-Release=$suite")
  "${apt[@]}" update
  "${apt[@]}" install --yes --no-install-recommends --download-only "$@" >/dev/null
  # The merged /usr, before packages that still speak of /lib.
  mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64"
  for name in bin sbin lib lib64; do [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"; done
  local package
  for package in "$work"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --no-same-owner --keep-directory-symlink -C "$root"
  done
  rm -rf "$work"
  touch "$root/.$*"
}

unpack trixie redis-server valkey-server
unpack sid valkey-server
unpack experimental redis-server
unpack sid radosgw ceph-mon ceph-osd
