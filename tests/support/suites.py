"""Where the servers are that `tests/servers/debian.sh` unpacks from other suites of Debian."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def started_by(which: str) -> Sequence[str]:
    """The command of `suite/binary`, with that suite's own C library; RuntimeError says how to get it."""
    suite, _, binary = which.partition("/")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asya" / "suites" / suite
    libraries = next(root.glob("usr/lib/*-linux-gnu"), None)
    loader = next(root.glob("usr/lib64/ld-linux-*"), None) or next(root.glob("usr/lib/ld-linux-*"), None)
    if libraries is None or loader is None or not (root / "usr/bin" / binary).exists():
        raise RuntimeError(f"{root}/usr/bin/{binary} is missing: run tests/servers/debian.sh")
    return [str(loader), "--library-path", str(libraries), str(root / "usr/bin" / binary)]
