#!/usr/bin/env bash
# Installs the real servers that the tests use: Debian packages where there is apt, pinned Go
# modules for the rest. Does nothing where everything is there; says what is missing and how to get
# it, and exits non-zero, where it cannot install.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
for pair in redis-server:redis-server nats-server:nats-server; do
  command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    # The services that the packages bring stay off: the tests start their own.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.asya
    chmod +x /usr/sbin/policy-rc.d.asya
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      mv /usr/sbin/policy-rc.d.asya /usr/sbin/policy-rc.d
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    else
      rm -f /usr/sbin/policy-rc.d.asya
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "missing: ${missing[*]}" >&2
    echo "The tests run against real servers. Install them (as root: apt-get install ${missing[*]}) and run this again." >&2
    exit 1
  fi
fi
[ ! -x ./build.sh ] || ./build.sh
./promtool.sh
