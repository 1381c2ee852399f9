"""Waiting for the state proxy before the handler is imported, since imports may read state."""

import _socket
import os
import time
from typing import List, Optional

from asya_contract.env import ShimEnv, parse_mounts

_PAUSE = 0.1


class ProxyMissing(Exception):
    """No proxy answers on a mount's socket; the text names it and says where to look."""


def wait(env: ShimEnv, patience: float) -> None:
    """Return once the socket of every mount takes connections; ProxyMissing after `patience` seconds."""
    deadline = time.monotonic() + patience
    missing = [os.path.join(env.socket_dir, f"{mount.name}.sock") for mount in parse_mounts(env.mounts)]
    while True:
        missing, reason = _unreachable(missing)
        if not missing:
            return
        if time.monotonic() >= deadline:
            raise ProxyMissing(
                f"no state proxy on {missing[0]} after {patience:g} s ({reason}): the pod has no container "
                "asya-state-proxy, or it does not start; see the events of the pod and the condition StateReady"
            )
        time.sleep(_PAUSE)


def _unreachable(paths: List[str]) -> "tuple[List[str], Optional[str]]":
    left: List[str] = []
    reason = None
    for path in paths:
        probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            probe.settimeout(1.0)
            probe.connect(path)
        except OSError as error:
            left.append(path)
            reason = error.strerror or str(error)
        finally:
            probe.close()
    return left, reason
