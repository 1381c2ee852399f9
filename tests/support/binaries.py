"""Where the test servers' binaries are that `tests/servers/build.sh` builds."""

from __future__ import annotations

import os
from pathlib import Path


def binary(name: str) -> Path:
    """Where a binary is once it is built."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asya" / "bin" / name


def built(name: str) -> str:
    """The path of a built binary; RuntimeError says how to get it."""
    path = binary(name)
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{path} is missing: run tests/servers/build.sh")
    return str(path)
