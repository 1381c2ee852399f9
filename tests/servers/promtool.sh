#!/usr/bin/env bash
# promtool, which checks alert rules, out of Debian's package of Prometheus: into ${XDG_CACHE_HOME:-~/.cache}/asya/bin,
# without installing a server. Does nothing where it is there, or on the PATH, and where there is no apt.
set -euo pipefail
bin="${XDG_CACHE_HOME:-$HOME/.cache}/asya/bin"

[ ! -x "$bin/promtool" ] || exit 0
if found=$(command -v promtool); then
  mkdir -p "$bin"
  ln -sfn "$found" "$bin/promtool"
  exit 0
fi
command -v apt-get >/dev/null || {
  echo "promtool is not here, and there is no apt-get to fetch it: the tests of the alert rules are left out." >&2
  exit 0
}
mkdir -p "$bin"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
echo "fetching promtool (once)" >&2
cd "$stage"
apt=(apt-get -qq -o APT::Sandbox::User=)
if ! "${apt[@]}" download prometheus 2>/dev/null; then
  # The system's lists are old, or there are none: lists of our own, for which nobody needs to be root.
  mkdir -p lists/partial archives/partial
  apt+=(-o "Dir::State::lists=$stage/lists" -o "Dir::Cache=$stage" -o "Dir::Cache::archives=$stage/archives"
    -o Debug::NoLocking=1 -o Acquire::Languages=none)
  "${apt[@]}" update
  "${apt[@]}" download prometheus
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
mv usr/bin/promtool "$bin/promtool"
