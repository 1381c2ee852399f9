#!/usr/bin/env bash
# The tests of whole pods, with pytest's options, on one of three clusters:
#   the one that KUBECONFIG names;
#   one of kind, where Docker's daemon answers (E2E_KUBERNETES=oldest|newest says which, E2E_PROVIDER=local none);
#   else one of our own on this machine (e2e/cluster; root, Linux).
# The last two end with the tests.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
pytest=$root/.venv/bin/pytest
cd "$root"
GOOS=linux tests/servers/build.sh versitygw gcsd

if [ -n "${KUBECONFIG-}" ]; then
  exec "$pytest" e2e "$@"
fi
if [ "${E2E_PROVIDER-}" != local ] && "$here/kind.sh" usable; then
  name=asya-e2e-$$
  place=$(mktemp -d)
  ended() {
    "$here/kind.sh" down "$name" || true
    rm -rf "$place"
  }
  trap ended EXIT
  "$here/kind.sh" up "${E2E_KUBERNETES:-newest}" "$name" "$place/kubeconfig"
  PATH=${XDG_CACHE_HOME:-$HOME/.cache}/asya/bin:$PATH
  export PATH KUBECONFIG=$place/kubeconfig
  "$pytest" e2e "$@" || {
    status=$?
    "$here/kind.sh" logs "$name" build/e2e-artifacts/kind || true
    exit "$status"
  }
else
  "$here/cluster/deps.sh"
  "$here/cluster/build.sh"
  "$here/cluster/image.sh" base 3.13
  "$pytest" e2e "$@"
fi
