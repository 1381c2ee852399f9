"""Where the servers are that `tests/servers/debian.sh` unpacks from other suites of Debian."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def suite(name: str) -> Path:
    """The root of a suite's files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asya" / "suites" / name


def started_by(which: str) -> Sequence[str]:
    """The command of `suite/binary`, with that suite's own C library; RuntimeError says how to get it."""
    name, _, binary = which.partition("/")
    root = suite(name)
    libraries = next(root.glob("usr/lib/*-linux-gnu"), None)
    loader = next(root.glob("usr/lib64/ld-linux-*"), None) or next(root.glob("usr/lib/ld-linux-*"), None)
    if libraries is None or loader is None or not (root / "usr/bin" / binary).exists():
        raise RuntimeError(f"{root}/usr/bin/{binary} is missing: run tests/servers/debian.sh")
    # Ceph's own libraries lie one directory deeper, where its binaries look for them by absolute path.
    return [str(loader), "--library-path", f"{libraries}:{libraries}/ceph", str(root / "usr/bin" / binary)]
