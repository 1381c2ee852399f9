# shellcheck shell=bash
# Sourced: one script at a time on a cluster's directory, and none that ends it under a test run.
#   $D/lock    held by up.sh and down.sh while they work
#   $D/in-use  held by a test run (e2e/rig/cluster.py) for as long as it lasts; its text says who

alone() { # who seconds-to-wait: hold the lock until the script ends
  local who=$1
  mkdir -p "$D"
  exec 9>"$D/lock"
  flock -n 9 && return
  echo "$who: another up or down works on $D; waiting for it" >&2
  flock -w "$2" 9 && return
  echo "$who: it still does after $2 s; end it, or set ASYA_CLUSTER_DIR to a directory of your own" >&2
  exit 1
}

unused() { # who: go on only if no test run uses the cluster
  [ -e "$D/in-use" ] || return 0
  flock -n "$D/in-use" true && return
  echo "$1: a test run ($(cat "$D/in-use")) uses the cluster in $D; wait for its end, or give --force" >&2
  exit 1
}
