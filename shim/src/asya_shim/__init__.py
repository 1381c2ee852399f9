"""Asya state, in the user's container: files below a mount that lie in the state backend.

`activate_from_environment()` is all that a program needs, and `sitecustomize`, the `.pth` and the
runtime call it. This module imports nothing else of ours until it is used, because every Python
process with the shim installed pays for it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asya_shim.activation import deactivate
    from asya_shim.errors import StateConflictError, StateUnavailableError
    from asya_shim.traces import traceparent
    from asya_shim.turns import Turn, turn
    from asya_shim.web import asgi, wsgi

__all__ = [
    "StateConflictError",
    "StateUnavailableError",
    "Turn",
    "activate_from_environment",
    "asgi",
    "deactivate",
    "traceparent",
    "turn",
    "wsgi",
]

_HOMES = {
    "StateConflictError": "asya_shim.errors",
    "StateUnavailableError": "asya_shim.errors",
    "Turn": "asya_shim.turns",
    "asgi": "asya_shim.web",
    "deactivate": "asya_shim.activation",
    "traceparent": "asya_shim.traces",
    "turn": "asya_shim.turns",
    "wsgi": "asya_shim.web",
}


def activate_from_environment() -> bool:
    """Install the file hooks if ASYA_STATE_PROXY_MOUNTS names a mount; whether they are installed.

    Calling it again does nothing. A bad value is written to standard error and ends the process with
    status 78 (EX_CONFIG): a program that believes its files durable must not run without.
    """
    if not os.environ.get("ASYA_STATE_PROXY_MOUNTS"):
        return False
    import gc

    # Next to nothing of what is made now is ever garbage; looking for it would take a tenth of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        from asya_shim.activation import activate

        return activate(os.environ)
    finally:
        if collects:
            gc.enable()


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
